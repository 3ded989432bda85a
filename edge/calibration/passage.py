"""The way of the calibration tokens through a model: from the embedding through each layer to the head, and the MTP."""

from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.calibration import streams as files
from edge.calibration.experts import ExpertCalibration, PackedExpert
from edge.calibration.gathering import gathered
from edge.calibration.layer import Sequences, calibrate_mixer, calibrate_mlp, normal_streams, normalise
from edge.calibration.layer_weights import DenseWeights
from edge.calibration.streams import Streams, blocks
from edge.checkpoint.contents import Contents
from edge.checkpoint.matrix import Matrix, dequantize_rows
from edge.checkpoint.names import layer_prefix
from edge.checkpoint.source import Checkpoint
from edge.quant.curvature import Curvature

Floats = NDArray[np.float32]
Packed = tuple[DenseWeights, Iterable[PackedExpert]]  # of a layer; its experts are packed as they are asked for

EMBEDDING, NORM, HEAD = "embed_tokens", "norm", "lm_head"


class Passage:
    """Calibrates a checkpoint's tensors, and moves streams on. `scratch`: a directory for what is inside a layer."""

    def __init__(self, checkpoint: Checkpoint, contents: Contents, scratch: Path) -> None:
        self._checkpoint, self._contents, self._scratch = checkpoint, contents, scratch
        self._config = contents.config

    def embed(self, sequences: Sequences, streams: Streams) -> DenseWeights:
        """The embedding, rounded to nearest: every row is an input by itself. Fills the streams."""
        weights, ids = self._embedding(), np.concatenate([np.asarray(ids, np.int64) for ids in sequences])
        wanted, given = weights.matrices(EMBEDDING)
        for rows in blocks(len(ids)):
            streams.wanted[rows] = dequantize_rows(wanted, ids[rows])
            streams.given[rows] = dequantize_rows(given, ids[rows])
        return weights

    def layer(self, layer: int, sequences: Sequences, streams: Streams) -> Packed:
        """A layer of the model; the streams are behind it once all experts were asked for."""
        weights = DenseWeights(self._checkpoint, self._contents, {f"layers.{layer}"}, f"layers.{layer}.")
        return weights, self._through(layer, weights, sequences, streams)

    def head(self, streams: Streams) -> DenseWeights:
        """The last norm and, where it is not the embedding, the head."""
        weights = DenseWeights(self._checkpoint, self._contents, {NORM, HEAD})
        if not self._config.tie_embeddings:

            def inputs(rows: slice) -> tuple[Floats, Floats]:
                return self._normal(streams.given[rows], norm), self._normal(streams.wanted[rows], norm)

            norm = weights.vector(NORM)
            weights.pack(HEAD, Curvature(gathered(len(streams.given), inputs)))
        return weights

    def mtp(self, norm: Floats, sequences: Sequences, streams: Streams) -> Packed:
        """The layer that foretells. `norm`: the model's last; `streams`: behind its last layer."""
        weights = DenseWeights(
            self._checkpoint, self._contents, {"mtp"}, layer_prefix(self._config, self._config.num_layers)
        )
        followers = [ids[1:] or ids for ids in sequences]  # one token alone follows itself: better than nothing
        ids = np.concatenate([np.asarray(ids, np.int64) for ids in followers])
        begins = accumulate((len(ids) for ids in sequences), initial=0)
        before = np.concatenate([begin + np.arange(len(ids)) for begin, ids in zip(begins, followers, strict=False)])
        embeddings = self._embedding().matrices(EMBEDDING)
        norms = [weights.vector(f"mtp.pre_fc_norm_{name}") for name in ("embedding", "hidden")]

        def joined(rows: slice, stream: Floats, embedding: Matrix) -> Floats:
            """[T, 2 H]: tokens, and the hidden states of those before them."""
            hidden = self._normal(stream[before[rows]], norm)
            parts = (dequantize_rows(embedding, ids[rows]), hidden)
            return np.concatenate([self._normal(part, norm) for part, norm in zip(parts, norms, strict=True)], axis=1)

        def inputs(rows: slice) -> tuple[Floats, Floats]:
            return joined(rows, streams.given, embeddings[1]), joined(rows, streams.wanted, embeddings[0])

        weights.pack("mtp.fc", Curvature(gathered(len(ids), inputs)))
        wanted, given = weights.matrices("mtp.fc")
        inner = files.create(self._scratch, "mtp", len(ids), self._config.hidden_size)
        for rows in blocks(len(ids)):
            inner.wanted[rows] = kernels.matmul(joined(rows, streams.wanted, embeddings[0]), wanted)
            inner.given[rows] = kernels.matmul(joined(rows, streams.given, embeddings[1]), given)
        return weights, self._through(self._config.num_layers, weights, followers, inner)

    def _through(
        self, layer: int, weights: DenseWeights, sequences: Sequences, streams: Streams
    ) -> Iterable[PackedExpert]:
        """Packs the dense weights, and the experts as they are asked for."""
        config = self._config
        calibrate_mixer(config, config.all_layer_types[layer], weights, streams, sequences, self._scratch)
        norm = weights.vector("post_attention_layernorm")
        normal, moments = normal_streams(config, streams, norm, self._scratch)
        if config.mlp_size:
            calibrate_mlp(weights, "mlp.", None, normal, Curvature(moments), streams)
        elif config.shared_expert_size:
            scale = "mlp.shared_expert_gate"
            calibrate_mlp(weights, "mlp.shared_expert.", scale, normal, Curvature(moments), streams)
        if self._contents.experts is None:
            return ()
        router, _ = weights.matrices("mlp.gate")
        experts = ExpertCalibration(self._checkpoint, layer, self._contents.experts, router, normal, moments)
        return experts.run(streams)

    def _embedding(self) -> DenseWeights:
        weights = DenseWeights(self._checkpoint, self._contents, {EMBEDDING})
        weights.pack_plainly()
        return weights

    def _normal(self, x: Floats, norm: Floats) -> Floats:
        return normalise(self._config, x, norm)
