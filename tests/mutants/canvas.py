"""Mistakes on the canvas of NAS-RL's layers, in its convolutions, and in the two routes of its children."""

from tests.mutants.mutant import Mutant

CANVAS = "jaxnas/spaces/nas_rl/canvas.py"
MASKS = "jaxnas/spaces/nas_rl/masks.py"
TAPS = "jaxnas/spaces/nas_rl/taps.py"
CHILDREN = "jaxnas/population/layer_children.py"
TESTS = "tests/spaces/test_nas_rl_canvas.py"
ALONE = (f"{TESTS}::test_logits_and_gradients_are_those_of_a_network_of_its_own",)
PART = (f"{TESTS}::test_a_kernel_that_is_partly_zero_is_convolved_by_the_part_in_use",)
FIRST = (f"{TESTS}::test_first_weights_are_scaled_by_the_inputs_of_the_child",)
ROUTES = "tests/population/test_layer_children.py"
EPSILON = (f"{ROUTES}::test_both_routes_take_the_number_that_normalisation_adds",)

MUTANTS = (
    Mutant(
        "canvas-rectangle",
        "kernels on the canvas are not masked by their height and width",
        MASKS,
        "masks.area[layer][:, :, None, None] *",
        "1.0 *",
        ALONE,
    ),
    Mutant(
        "canvas-corner",
        "smaller kernels lie in a corner of the largest one",
        MASKS,
        "np.abs(np.arange(most) - most // 2)",
        "np.arange(most) // 2",
        ALONE,
    ),
    Mutant(
        "canvas-connections",
        "a layer on the canvas reads all layers before it",
        MASKS,
        "jnp.repeat(masks.connected[layer, :layer], plan.convolutions)",
        "jnp.ones(layer * plan.convolutions, masks.connected.dtype)",
        ALONE,
    ),
    Mutant(
        "canvas-image",
        "every layer on the canvas reads the image",
        MASKS,
        "image=jnp.prod(apart, 1)",
        "image=jnp.ones(plan.num_layers, plan.wide)",
        ALONE,
    ),
    Mutant(
        "canvas-orphans",
        "the classifier of the canvas reads the last layer alone",
        MASKS,
        "outputs=jnp.prod(apart, 0)",
        "outputs=jnp.prod(apart, 0) * (np.arange(plan.num_layers) == plan.num_layers - 1)",
        ALONE,
    ),
    Mutant(
        "canvas-filters",
        "filters on the canvas are not masked after normalisation",
        CANVAS,
        "images.append(y * masks.filters[i].astype(y.dtype).reshape(1, 1, 1, -1))",
        "images.append(y)",
        ALONE,
    ),
    Mutant(
        "canvas-more-filters",
        "the masks of the filters leave out those that every layer has more",
        MASKS,
        "counts = np.array(plan.filters)[:, None] + plan.more_filters",
        "counts = np.array(plan.filters)[:, None]",
        ALONE,
    ),
    Mutant(
        "canvas-block",
        "a convolution of a block does not read those before it in the block",
        MASKS,
        "jnp.ones(number, layers.dtype)",
        "jnp.zeros(number, layers.dtype)",
        ALONE,
    ),
    Mutant(
        "canvas-reference",
        "the canvas normalises with the whole batch where reference examples are to give the statistics",
        CANVAS,
        "reference=plan.reference, eps=eps",
        "reference=0, eps=eps",
        ALONE,
    ),
    Mutant(
        "canvas-order",
        "the canvas has one order of convolution, normalisation and ReLU",
        CANVAS,
        'y = jax.nn.relu(y) if plan.order == "conv_relu_bn" else y',
        "y = jax.nn.relu(y)",
        ALONE,
    ),
    Mutant(
        "canvas-probe",
        "the canvas gives no gradient to options that are probed",
        MASKS,
        "if not one or paths.probe is not None:",
        "if not one:",
        (f"{TESTS}::test_options_that_are_probed_get_the_gradients_of_the_dense_form",),
    ),
    Mutant(
        "canvas-fan-in",
        "first weights of a child are scaled by the inputs of the whole canvas",
        CANVAS,
        "jnp.sum(leaf[..., 0] > 0)",
        "jnp.sum(leaf[..., 0] >= 0)",
        FIRST,
    ),
    Mutant(
        "canvas-first-weights",
        "first weights of a child fill the whole canvas",
        CANVAS,
        "jnp.where(mask > 0, first, 0.0)",
        "jnp.where(mask >= 0, first, 0.0)",
        FIRST,
    ),
    Mutant(
        "canvas-cut",
        "the weights of a child are cut from a corner of the canvas",
        CANVAS,
        "first = (max(plan.kernels) - side) // 2",
        "first = 0",
        ALONE,
    ),
    Mutant(
        "taps-rows",
        "the rows in use are taken from the top of the kernel",
        TAPS,
        "rows - use.rows // 2 + tap // use.columns",
        "tap // use.columns",
        PART,
    ),
    Mutant(
        "taps-branch",
        "a kernel with few inputs is convolved as one with few outputs",
        TAPS,
        "1 + use.inputs * len(widths[1]) + use.outputs",
        "1 + use.outputs * len(widths[1]) + use.inputs",
        (*PART, f"{ALONE[0]}[branches]"),
    ),
    Mutant(
        "taps-overwrite",
        "a pixel gets the gradient of the last tap that reads it",
        TAPS,
        "before + back",
        "back",
        PART,
    ),
    Mutant(
        "children-judged-as-trained",
        "children of the canvas are judged without reference examples",
        CHILDREN,
        "dataclasses.replace(plan, reference=reference)",
        "dataclasses.replace(plan, reference=0)",
        (f"{ROUTES}::test_a_child_is_the_same_on_both_routes",),
    ),
    Mutant(
        "children-trained-with-reference",
        "children of the canvas are trained with the reference examples of their space",
        CHILDREN,
        "dataclasses.replace(plan, reference=0), ",
        "plan, ",
        (f"{ROUTES}::test_the_reference_of_a_space_is_not_used_for_training",),
    ),
    Mutant(
        "children-own-first-weights",
        "a child with a program of its own has first weights of its own",
        CHILDREN,
        "canvas_cut(plan, canvas_init(plan, key, x, arch), arch)",
        'network.init(key, x)["params"]',
        (f"{ROUTES}::test_both_routes_start_from_the_same_weights",),
    ),
    Mutant(
        "children-epsilon",
        "a child with a program of its own ignores the number that normalisation adds",
        CHILDREN,
        '"eps": eps, "more_filters"',
        '"more_filters"',
        EPSILON,
    ),
    Mutant(
        "children-more-filters",
        "a child with a program of its own has no more filters than it chose",
        CHILDREN,
        "plan = dataclasses.replace(plan, more_filters=more_filters)",
        "plan = dataclasses.replace(plan)",
        (f"{ROUTES}::test_a_child_may_have_more_filters",),
    ),
)
