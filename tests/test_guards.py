"""Rules for the package as a whole: imports, names, docstrings."""

import ast
import graphlib
import inspect
import re
from pathlib import Path

import pytest

import interpreto
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.metrics.metric_result import Needs

ROOT = Path(interpreto.__file__).parent
# Lower layers first; an import may only go downwards or sideways, inside functions too.
LAYERS = [
    ("interpreto.errors", "interpreto.typing", "interpreto.type_guards", "interpreto.option_kinds"),
    ("interpreto.atomic",),
    ("interpreto.visualizations",),
    ("interpreto.zoo",),
    ("interpreto.model_wrapping",),
    ("interpreto.model_wrapping.wrapper",),
    ("interpreto.model_wrapping.tasks",),
    ("interpreto.attributions.granularity",),
    ("interpreto.attributions.perturbations", "interpreto.attributions.aggregations"),
    ("interpreto.attributions",),
    ("interpreto.attributions.methods",),
    ("interpreto.attributions.metrics",),
    ("interpreto.explain",),
    ("interpreto.loading",),
    ("interpreto.comparison",),
    ("interpreto", "interpreto.extend"),
    ("interpreto.cli", "interpreto.__main__"),
]
PATHS = sorted(ROOT.rglob("*.py"))


def layer(module):
    """The layer of the longest prefix of the module's name."""
    fits = [
        (len(name), number)
        for number, names in enumerate(LAYERS)
        for name in names
        if f"{module}.".startswith(f"{name}.")
    ]
    return max(fits)[1]


def module_of(path):
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in PATHS}


def imports(path):
    """The modules of the package that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("interpreto"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("interpreto"))


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_imports_go_one_way(path):
    here = module_of(path)
    for module in imports(path):
        if module == "interpreto" or (module.startswith("interpreto.zoo") and here != "interpreto.errors"):
            continue
        assert layer(module) <= layer(here), f"{here} imports {module}, which lies above it"


def test_there_are_no_import_cycles():
    graph = {}
    for path in PATHS:
        here = module_of(path)
        # A package imports its own modules, and these may import what the package does not define itself.
        graph[here] = {name for name in imports(path) if name != here and not f"{name}.".startswith(f"{here}.")}
    # The root names its public objects in a stub and imports them when they are first used.
    graph["interpreto"] = set()
    assert cycle_in(graph) is None


def cycle_in(graph):
    """A cycle of a graph, as a list of its nodes; None if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_cycles_are_found():
    assert set(cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


# Names that were replaced by the terms of the field, for modules, classes, functions, parameters and fields.
RETIRED_MODULES = [
    "adaptive",
    "alone",
    "anatomy",
    "arrangement",
    "asked",
    "bare",
    "case",
    "chunk",
    "crowd",
    "driver",
    "entrants",
    "everything",
    "fidelity",
    "figures",
    "files",
    "hiding",
    "information",
    "inside",
    "judge",
    "kernels",
    "leads",
    "lens",
    "levels",
    "looking",
    "measured",
    "modelled",
    "owner",
    "pictures",
    "pointwise",
    "probe",
    "reach",
    "recipes",
    "regional",
    "seams",
    "settle",
    "setup",
    "sides",
    "smoothed",
    "spot",
    "standings",
    "table",
    "tap",
    "told",
    "towers",
    "traced",
    "troubles",
    "two_sides",
    "unasked",
    "watch",
    "whole",
]
RETIRED_NAMES = [
    "Anatomy",
    "Answer",
    "Arrangement",
    "Ask",
    "Asked",
    "Blend",
    "Both",
    "Case",
    "Chunk",
    "Combine",
    "Differentiable",
    "Done",
    "Entrant",
    "Entry",
    "Everything",
    "Explained",
    "Failed",
    "Finish",
    "Foreseen",
    "Hiding",
    "InformationModality",
    "InsideOptions",
    "Judge",
    "LanguageModel",
    "Lens",
    "MaskMethod",
    "MaskModality",
    "Measured",
    "ModelledMetric",
    "Natural",
    "Opened",
    "Pictures",
    "PointMethod",
    "Pointwise",
    "Recipe",
    "Regional",
    "Saved",
    "Settled",
    "Sides",
    "Smoothed",
    "Standing",
    "Tap",
    "TensorModality",
    "Told",
    "Towers",
    "Traced",
    "Unasked",
    "Unitization",
    "Verdict",
    "Work",
    "Wrapper",
    "anatomy",
    "asked",
    "borrowed",
    "crowd",
    "drive",
    "for_",
    "going_on",
    "n_rows",
    "own_units",
    "posed",
    "probe",
    "recipe",
    "said",
    "settle",
    "settler",
    "slug",
    "spot",
    "tap",
    "together",
    "told",
    "unasked",
    "varied",
    "visible",
    "wanted",
    "watch",
    "without_each",
    "without_favourites",
    "without_memory",
]


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_retired_names_are_not_used(path):
    assert not {*path.relative_to(ROOT).parent.parts, path.stem} & set(RETIRED_MODULES)
    defined = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                defined.add(node.name)
            case ast.arg():
                defined.add(node.arg)
            case ast.AnnAssign(target=ast.Name()):
                defined.add(node.target.id)
    assert not defined & set(RETIRED_NAMES)


@pytest.mark.parametrize("name", interpreto.__all__)
def test_public_names_are_documented(name):
    assert inspect.getdoc(getattr(interpreto, name))


@pytest.mark.parametrize("method", interpreto.METHODS + interpreto.CONTROLS)
def test_methods_are_a_choice_of_parts(method):
    assert method.__bases__ == (Explainer,)
    own = [name for name, value in vars(method).items() if inspect.isfunction(value)]
    assert own == ["__init__"]
    text = inspect.getdoc(method)
    assert "Source:" in text
    options = [p for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        assert re.search(rf"^\s+{option.name}: ", text, re.M), f"{method.__name__} does not document {option.name}"
    # Shared options are forwarded as one TypedDict.
    assert "options" in inspect.signature(method).parameters


def test_all_methods_are_public():
    listed = {method.__name__ for method in interpreto.METHODS}
    assert listed <= set(interpreto.__all__)
    listed |= {control.__name__ for control in interpreto.CONTROLS}
    assert listed == {cls.__name__ for cls in Explainer.__subclasses__() if cls.__module__.startswith("interpreto.")}


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_sources_follow_the_conventions(path):
    text = path.read_text()
    assert "from __future__ import annotations" not in text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), (
            "a bare except swallows what it should not"
        )
        assert not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "super", "np.trapz"))
    assert ast.get_docstring(tree), "every module says what it is for"


def test_all_metrics_are_public_and_declare_their_needs():
    listed = {metric.__name__ for metric in interpreto.METRICS}
    assert listed <= set(interpreto.__all__)
    for metric in interpreto.METRICS:
        assert isinstance(metric.needs, Needs)
        assert metric.higher_is_better in (True, False, None)


def test_deserialisation_is_safe():
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        assert "pickle" not in text
        assert "trust_remote_code" not in text
        assert "torch.load(" not in text


def parameters_of(node, classes):
    """The names that the docstring of a function or class may list: parameters, fields and attributes."""
    if isinstance(node, ast.FunctionDef):
        every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg)
        return {one.arg for one in every if one is not None}
    names = set()
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name="__init__" | "__new__"):
                names |= parameters_of(inner, classes)
            case ast.FunctionDef():
                names.add(inner.name)
            case ast.AnnAssign(target=ast.Name()):
                names.add(inner.target.id)
            case ast.Attribute(value=ast.Name(id="self")):
                names.add(inner.attr)
            case ast.Assign():
                names |= {target.id for target in inner.targets if isinstance(target, ast.Name)}
    bases = [classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    return names.union(*(parameters_of(base, classes) for base in bases))


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_docstrings_list_what_there_is(path):
    tree = ast.parse(path.read_text())
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        text = ast.get_docstring(node) or ""
        for section in re.finditer(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", text, re.M):
            listed = set(re.findall(r"^    (\w+):", section[1], re.M))
            assert listed <= parameters_of(node, classes), f"{node.name} documents what it does not have"
