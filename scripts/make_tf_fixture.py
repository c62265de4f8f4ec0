"""Write tests/weights/fixtures/openai: a tiny random GPT-2, saved by TensorFlow in the layout of the original release.

Needs TensorFlow, which the project itself never imports; in an environment of its own:

    python -m venv /tmp/tf && /tmp/tf/bin/pip install tensorflow-cpu safetensors tokenizers
    /tmp/tf/bin/python scripts/make_tf_fixture.py
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

OUT = Path(__file__).parents[1] / "tests" / "weights" / "fixtures" / "openai"
HPARAMS = {"n_vocab": 290, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}
SENTENCES = [
    "the morning train leaves at seven and the evening train at nine",
    "in the evening the children sing in the garden behind the house",
    "seven of the nine houses in this street have a garden",
    "she was reading the morning paper while the train was leaving",
]


def block_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Variables of one block; matrices have the leading axis of a convolution over time."""
    return {
        "ln_1/g": (width,),
        "ln_1/b": (width,),
        "attn/c_attn/w": (1, width, 3 * width),
        "attn/c_attn/b": (3 * width,),
        "attn/c_proj/w": (1, width, width),
        "attn/c_proj/b": (width,),
        "ln_2/g": (width,),
        "ln_2/b": (width,),
        "mlp/c_fc/w": (1, width, 4 * width),
        "mlp/c_fc/b": (4 * width,),
        "mlp/c_proj/w": (1, 4 * width, width),
        "mlp/c_proj/b": (width,),
    }


def all_shapes() -> dict[str, tuple[int, ...]]:
    width = HPARAMS["n_embd"]
    shapes = {"model/wte": (HPARAMS["n_vocab"], width), "model/wpe": (HPARAMS["n_ctx"], width)}
    for block in range(HPARAMS["n_layer"]):
        shapes |= {f"model/h{block}/{name}": shape for name, shape in block_shapes(width).items()}
    return shapes | {"model/ln_f/g": (width,), "model/ln_f/b": (width,)}


def write_checkpoint(arrays: dict[str, np.ndarray]) -> None:
    """The values are loaded, not given as initial values, which the .meta file would repeat as text."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, array.shape, use_resource=False) for name, array in arrays.items()
        }
        for name, array in arrays.items():
            variables[name].load(array, session)
        saver = tf.compat.v1.train.Saver(list(variables.values()), save_relative_paths=True)
        saver.save(session, str(OUT / "model.ckpt"), strip_default_attrs=True)


def write_tokenizer() -> None:
    """encoder.json and vocab.bpe with n_vocab ids, the end of text last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=HPARAMS["n_vocab"] - 1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = model["vocab"] | {"<|endoftext|>": HPARAMS["n_vocab"] - 1}
    assert len(vocabulary) == HPARAMS["n_vocab"]
    (OUT / "encoder.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (OUT / "vocab.bpe").write_text("#version: 0.2\n" + merges, encoding="utf-8")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(123)
    arrays = {name: numbers.normal(0, 0.5, shape).astype(np.float32) for name, shape in all_shapes().items()}
    (OUT / "hparams.json").write_text(json.dumps(HPARAMS), encoding="utf-8")
    write_tokenizer()
    write_checkpoint(arrays)
    save_file(arrays, OUT / "expected.safetensors")
    (OUT / "expected.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
