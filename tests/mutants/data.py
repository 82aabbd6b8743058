"""Mistakes in `jaxnas/data`, `jaxnas/export` and `jaxnas/plot`."""

from tests.mutants.mutant import Mutant

BATCHES = ("tests/data/test_batches.py",)
AUGMENT = ("tests/data/test_augment.py",)
SPLITS = ("tests/data/test_splits.py",)

MUTANTS = (
    Mutant(
        "unshuffled-epoch",
        "all epochs in one order",
        "jaxnas/data/batches.py",
        "_shuffled(jax.random.fold_in(key, epoch), num_examples, positions)",
        "_shuffled(key, num_examples, positions)",
        BATCHES,
    ),
    Mutant(
        "last-batch",
        "the incomplete batch of an epoch repeats examples",
        "jaxnas/data/batches.py",
        "jnp.divmod(jnp.asarray(step, jnp.int32), num_examples // batch_size)",
        "jnp.divmod(jnp.asarray(step, jnp.int32), -(-num_examples // batch_size))",
        BATCHES,
    ),
    Mutant(
        "grey-levels",
        "pixels in units of 256 levels",
        "jaxnas/data/batches.py",
        "values = jnp.asarray(images, jnp.float32) / 255",
        "values = jnp.asarray(images, jnp.float32) / 256",
        BATCHES,
    ),
    Mutant(
        "crop-range",
        "the farthest shift of a crop left out",
        "jaxnas/data/augment.py",
        "0, 2 * padding + 1",
        "0, 2 * padding",
        AUGMENT,
    ),
    Mutant(
        "flip-axis",
        "images turned upside down",
        "jaxnas/data/augment.py",
        "image[:, ::-1]",
        "image[::-1]",
        AUGMENT,
    ),
    Mutant(
        "cutout-side",
        "a cut-out square one pixel too large",
        "jaxnas/data/augment.py",
        "(place < length // 2)",
        "(place <= length // 2)",
        AUGMENT,
    ),
    Mutant(
        "statistics-levels",
        "the statistics of a channel in units of 256 levels",
        "jaxnas/data/splits.py",
        "values = np.arange(256) / 255",
        "values = np.arange(256) / 256",
        SPLITS,
    ),
    Mutant(
        "hold-out-leak",
        "held-out examples stay among the training examples",
        "jaxnas/data/examples.py",
        "rest = Examples(examples.images[~chosen], examples.labels[~chosen])",
        "rest = examples",
        ("tests/data/test_sources.py", "tests/data/test_splits.py"),
    ),
    Mutant(
        "shrink-rounding",
        "averages of pixels rounded down",
        "jaxnas/data/examples.py",
        "+ area // 2) // area",
        ") // area",
        ("tests/data/test_sources.py", "tests/data/test_splits.py"),
    ),
    Mutant(
        "weights-dtype",
        "weights read in the dtype of the file",
        "jaxnas/export/weights.py",
        "[found[name].astype(wanted[name].dtype) for name in wanted]",
        "[found[name] for name in wanted]",
        ("tests/test_export.py::test_lists_and_narrow_types_come_back_in_the_structure_asked_for",),
    ),
    Mutant(
        "exported-training",
        "a network exported with the statistics of the batch",
        "jaxnas/export/stablehlo.py",
        "return network.apply(variables, images)[0]",
        "return network.apply(variables, images, train=True)[0]",
        (
            "tests/test_export.py::test_one_function_for_every_batch_size",
            "tests/test_export.py::test_inherited_weights_are_exported",
        ),
    ),
    Mutant(
        "curve-rest",
        "what does not apply to a step drawn as a gap",
        "jaxnas/plot/_curves.py",
        'applies = record.get("nonfinite") != 0 or (value != "NaN" and value == value)',
        "applies = True",
        ("tests/test_plot_series.py",),
    ),
)
