"""The largest model that is served, for plans of memory: Qwen3.5-397B-A17B at 4.5 bits."""

from edge.checkpoint.geometries import geometry
from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout

CONFIG = geometry("qwen3.5-397b-a17b")
GATE = MatrixLayout(Format.Q4, CONFIG.expert_size, CONFIG.hidden_size, 64)
EXPERT = ExpertLayout(GATE, GATE, MatrixLayout(Format.Q4, CONFIG.hidden_size, CONFIG.expert_size, 64))
