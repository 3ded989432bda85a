"""How large random weights have to be for a hidden state that behaves: of known size, and as changeable as a real one.

The hidden state of a token is [constant, r]: its first 64 values are the embedding's constant, to which no layer
writes, and the r of the others starts as independent values of variance 1. Each mixer and each plain MLP or shared
expert adds to r's variance the share below, routed experts a fixed amount (their files may serve several layers). Every
matrix has a mean of 0 and reads a normalised state, so these variances follow from those of the weights and are not
measured.

A router's logit of expert e is then offset_e * (constant part) + noise_e * (r part): with rows of weights whose first
64 columns are all alike, the state's constant reads out an offset per expert, the same for every token, and the other
columns give independent noise of known variance. Which frequencies come of it: edge/checkpoint/routing_skew.py.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import RUN_COLUMNS
from edge.config import FULL_ATTENTION, ModelConfig

NUM_CONSTANT = RUN_COLUMNS  # a group of columns, so that a scale of 0 makes a constant in every format
# Of r's variance that a sublayer adds. With these the router of a layer, asked on the state before that layer's mixer
# and the last one's routed experts, names about 80% of the experts that will be chosen: on the real 397B 74-86%.
LINEAR_SHARE = 0.06
# Attention's output shrinks as it averages over more tokens, so that its size is the one that is not known beforehand.
FULL_SHARE = 0.01
MLP_SHARE = 0.01  # a shared expert or, in a model without experts, the MLP
ROUTED_VARIANCE = 0.04

# Of z normal with variance 1.
MEAN_SILU_SQUARED = 0.3557
MEAN_SIGMOID_SQUARED = 0.2933
# Of attention's weights over the tokens, their squares' sum: about e^4 / T at q_norm's QUERY_WEIGHT, within T tokens.
MEAN_ATTENTION_SQUARED = 0.2
QUERY_WEIGHT = 1.0  # the norm multiplies by 1 + it, and scores so have a spread of 2
# Of the convolution before SiLU. Of keys and queries small: SiLU is nearly linear there, its output has nearly no mean,
# and so no part of a DeltaNet's output is the same for all tokens. Of values large: before its norm the output is
# smaller than they by about the key width, and must stay above the norm's epsilon.
KEY_CONV_STD = 0.1
VALUE_CONV_STD = 4.0


def constant_of(config: ModelConfig) -> float:
    """What the embedding's first columns hold: 1/64 of the embedding's energy, whatever its width."""
    return math.sqrt(config.hidden_size) / NUM_CONSTANT


@dataclass(frozen=True, slots=True)
class LayerSignal:
    """Spreads of the weights of one layer that write to the hidden state, and r's variance at its router."""

    mixer_std: float
    mlp_down_std: float
    router_variance: float


def layer_signals(config: ModelConfig) -> Iterator[LayerSignal]:
    """Of each layer in turn."""
    variance = 1.0
    for kind in config.all_layer_types:
        if kind == FULL_ATTENTION:
            added, fan_in = FULL_SHARE * variance, config.num_attention_heads * config.head_dim
            mean_square = MEAN_ATTENTION_SQUARED * (MEAN_SIGMOID_SQUARED if config.attention_gate else 1)
        else:
            added, fan_in = LINEAR_SHARE * variance, config.num_value_heads * config.value_head_dim
            mean_square = MEAN_SILU_SQUARED
        mixer_std = (added / (fan_in * mean_square)) ** 0.5
        variance += added
        added = MLP_SHARE * variance
        if config.num_experts:
            mlp_square = config.shared_expert_size * MEAN_SILU_SQUARED * MEAN_SIGMOID_SQUARED
        else:
            mlp_square = config.mlp_size * MEAN_SILU_SQUARED
        yield LayerSignal(mixer_std, (added / mlp_square) ** 0.5, variance)
        variance += added + (ROUTED_VARIANCE if config.num_experts else 0)


def expert_down_std(config: ModelConfig, mean_square_share: float) -> float:
    """Of a routed expert's down matrix. `mean_square_share`: sum of the squared shares of a token's experts."""
    return math.sqrt(ROUTED_VARIANCE / (config.expert_size * MEAN_SILU_SQUARED * mean_square_share))


def router_rows(
    config: ModelConfig, offsets: NDArray[np.float64], variance: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A router whose logits are noise of variance about 1 plus `offsets` in units of the noise: [E, H].

    `variance` is that of r at this layer. All rows are of one length: a longer one would be chosen more often.
    """
    hidden = config.hidden_size
    rows = rng.standard_normal((config.num_experts, hidden), np.float32)
    rows /= np.linalg.norm(rows[:, NUM_CONSTANT:], axis=1, keepdims=True) * (hidden / (hidden - NUM_CONSTANT)) ** 0.5
    noise = (variance * (hidden - NUM_CONSTANT) / hidden) ** 0.5
    rows[:, :NUM_CONSTANT] = (offsets * noise / (NUM_CONSTANT * constant_of(config)))[:, None]
    return rows
