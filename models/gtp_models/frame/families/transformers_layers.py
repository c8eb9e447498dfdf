"""transformers' own ViTs: DINOv2 (also within Depth Anything), ViT, DeiT, ViTPose's backbone; of transformers 5.

They call their layers one by one, and hooks of transformers record what each returns. So each layer's forward is stood
in for: the patched blocks run on, and full grids come out. Nothing of transformers is imported: its classes are known
by name, and a ``View`` of a model has what the frame reads of timm's.
"""

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.families.forms import FAMILIES, BlockForm, Blocks, Family, Linear

MODULES = "transformers.models."
IMPLEMENTATIONS = ("eager", "sdpa")  # of attention, which the frame restates


@dataclass(frozen=True)
class LayerForm:
    """Where a layer of transformers has its parts: paths of modules, empty where it has none.

    Attributes:
        norms: in front of attention and of the MLP.
        linears: queries, keys, values and the projection of attention.
        heads: number of heads and their dimension, numbers of attention.
        attention: the module that these are of.
        behind: what attention's output and the MLP's pass before they are added.
        drop_path: drops whole images in training.
    """

    norms: tuple[str, str]
    linears: tuple[str, str, str, str]
    heads: tuple[str, str]
    attention: str = "attention"
    behind: tuple[str, str] = ("", "")
    drop_path: str = ""


@dataclass(frozen=True)
class ModelForm:
    """A class of transformers: the path of its layers and their form, and its prefix tokens besides registers.

    Attributes:
        resamples: it resamples its positions to the size of the images.
    """

    layers: str
    layer: LayerForm
    prefix: int
    resamples: bool = False


_PROJECTIONS = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj")
_HEADS = ("num_attention_heads", "head_dim")
_BEFORE = ("layernorm_before", "layernorm_after")
_DINOV2 = LayerForm(
    ("norm1", "norm2"), _PROJECTIONS, _HEADS, behind=("layer_scale1", "layer_scale2"), drop_path="drop_path"
)
_VIT = LayerForm(_BEFORE, _PROJECTIONS, _HEADS, behind=("dropout", "dropout"))
_VITPOSE = LayerForm(
    _BEFORE,
    ("attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense"),
    ("num_attention_heads", "attention_head_size"),
    attention="attention.attention",
    behind=("attention.output.dropout", ""),
)
FORMS: Mapping[str, ModelForm] = {  # by class
    "Dinov2Model": ModelForm("encoder.layer", _DINOV2, 1, resamples=True),
    "Dinov2Backbone": ModelForm("encoder.layer", _DINOV2, 1, resamples=True),
    "Dinov2WithRegistersModel": ModelForm("encoder.layer", _DINOV2, 1, resamples=True),
    "Dinov2WithRegistersBackbone": ModelForm("encoder.layer", _DINOV2, 1, resamples=True),
    "ViTModel": ModelForm("layers", _VIT, 1),
    "DeiTModel": ModelForm("layers", _VIT, 2),
    "VitPoseBackbone": ModelForm("encoder.layer", _VITPOSE, 0),
}
_OWN_ROTARY = "rotary embeddings of its own, for which there is no adapter: load its weights with timm"
_WINDOWS = "windows of the grid, or a bias for each pair of positions in it"
REASONS: Mapping[str, str] = {  # why others cannot be patched, by what their classes begin with
    "Beit": _WINDOWS,
    "Data2VecVision": _WINDOWS,
    "DINOv3ViT": _OWN_ROTARY,
    "Hiera": "stages whose feature maps shrink on the grid",
    "Sam": _WINDOWS,
    "Swin": _WINDOWS,
    "ViTMAE": "patches that are dropped at random: load its weights with timm",
    "VitDet": _WINDOWS,
}


def is_transformers(part: Any) -> bool:
    """Whether a module's class is one of transformers' models."""
    return type(part).__module__.startswith(MODULES)


def why_not(part: Any) -> str:
    """Return what a module of transformers has that no patch can follow; nothing where no reason is known."""
    if not is_transformers(part):
        return ""
    return next((reason for start, reason in REASONS.items() if type(part).__name__.startswith(start)), "")


class Attention(nn.Module):
    """An attention of transformers, with the names of timm's."""

    def __init__(self, layer: Any, form: LayerForm) -> None:
        super().__init__()
        attention: Any = attrgetter(form.attention)(layer)
        self.linears = nn.ModuleList(attrgetter(path)(layer) for path in form.linears)
        self.num_heads, self.head_dim = (getattr(attention, name) for name in form.heads)
        self.scale = attention.scaling
        self.proj = self.linears[3]
        self.q_norm = self.k_norm = nn.Identity()
        self.gate = None
        self.rate = getattr(attention, "attention_dropout", getattr(attention, "dropout_prob", 0.0))
        self.origin = (attention,)  # in a tuple: it is registered in the model

    def attn_drop(self, attention: Tensor) -> Tensor:
        """Drop entries of the attention map, in training."""
        return F.dropout(attention, self.rate, self.origin[0].training)

    def norm(self, mixed: Tensor) -> Tensor:
        """Return what is mixed as it is."""
        return mixed

    def proj_drop(self, out: Tensor) -> Tensor:
        """Return the output as it is."""
        return out


class Block(nn.Module):
    """A layer of transformers, with the names of timm's: its own modules, which stay where they are."""

    def __init__(self, layer: Any, form: LayerForm) -> None:
        super().__init__()
        self.norm1, self.norm2 = (attrgetter(path)(layer) for path in form.norms)
        self.attn = Attention(layer, form)
        self.mlp = layer.mlp
        self.behind1, self.behind2 = (attrgetter(path)(layer) if path else None for path in form.behind)
        never = nn.Identity().eval()
        self.drop_path1 = self.drop_path2 = attrgetter(form.drop_path)(layer) if form.drop_path else never
        self.layer = (layer,)  # in a tuple: its parts are registered here


def _behind(module: Any, branch: Tensor) -> Tensor:
    return branch if module is None else module(branch)


@dataclass(frozen=True)
class PatchEmbed:
    """What the frame reads of timm's patch embedding; sizes are (rows, columns) of pixels."""

    proj: nn.Conv2d
    img_size: tuple[int, int]
    patch_size: tuple[int, int]

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1]

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return self.grid_size[0] * self.grid_size[1]

    def modules(self) -> Iterator[nn.Module]:
        """Give the convolution."""
        yield self.proj


class View:
    """A ViT of transformers with the names of timm's. It holds nothing: views of one model are the same.

    Args:
        model: of a class of ``FORMS``.
        size: (height, width) of its images; by default its configuration's.

    Raises:
        UnsupportedModelError: it takes other images, or its parts are not those of transformers 5.
    """

    dynamic_img_size = grad_checkpointing = False
    attn_pool = None
    global_pool = ""
    num_classes = 0

    def __init__(self, model: Any, size: tuple[int, int] | None = None) -> None:
        self.model, self.form = model, FORMS[type(model).__name__]
        self.head = nn.Identity()
        embeddings = model.embeddings.patch_embeddings
        own, patch = _pair(embeddings.image_size), _pair(embeddings.patch_size)
        size = size or own
        self.patch_embed = PatchEmbed(embeddings.projection, size, patch)
        if size != own and not self.form.resamples:
            raise UnsupportedModelError(f"{self.name} takes images of {own} pixels, and these are {size}: give such")
        try:
            self._layers: Any = attrgetter(self.form.layers)(model)
            self._views = [Block(layer, self.form.layer) for layer in self._layers]
        except AttributeError as error:
            raise UnsupportedModelError(f"{self.name} is not as transformers 5 has it ({error}): update it") from error

    @property
    def name(self) -> str:
        """The model's class."""
        return type(self.model).__name__

    @property
    def blocks(self) -> Any:
        """The patched blocks, or a list of views."""
        step = vars(self._layers[0]).get("forward")
        return step.blocks if isinstance(step, Step) else nn.ModuleList(self._views)

    @property
    def layers(self) -> Any:
        """What holds the layers in the model."""
        return self._layers

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches."""
        registers = getattr(self.model.embeddings, "register_tokens", None)
        return self.form.prefix + (0 if registers is None else registers.shape[1])

    @property
    def cls_token(self) -> Any:
        """The class token, or None."""
        return getattr(self.model.embeddings, "cls_token", None)

    @property
    def embed_dim(self) -> int:
        """Channels of a token."""
        return int(self.model.config.hidden_size)

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the tokens of the last layer, (B, tokens, dim), as the model has them."""
        x = self.model.embeddings(images)
        for layer in self._layers:
            x = layer(x)
        return self.model.layernorm(x)

    def install(self, blocks: Blocks, patched: bool) -> None:
        """Let the layers run patched blocks, or themselves again."""
        for index, layer in enumerate(self._layers):
            if patched:
                vars(layer)["forward"] = Step(blocks, index)
            else:
                vars(layer).pop("forward", None)


def _pair(size: Any) -> tuple[int, int]:
    rows, columns = (size, size) if isinstance(size, int) else size
    return int(rows), int(columns)


def as_timm(model: Any, size: tuple[int, int] | None = None) -> Any:
    """Return a view of a ViT of transformers, with the names of timm's; every other model is returned as it is."""
    return View(model, size) if is_transformers(model) and type(model).__name__ in FORMS else model


def layers_of(model: Any) -> Any:
    """Return what holds a model's blocks among its modules."""
    return model.layers if isinstance(model, View) else model.blocks


@dataclass
class _Run:
    """A forward on its way: the blocks, their states to come, and what the latest layer returned."""

    blocks: Any
    states: Iterator[tuple[Tensor, Any]]
    last: Tensor


_run: ContextVar[_Run | None] = ContextVar("run", default=None)


@dataclass
class Step:
    """Stands in for a layer's forward: runs one of the patched blocks, on the tokens behind the one before.

    Modifications:
    - its input counts only in the first layer; every layer gives the full grid
    - attention masks and attention maps as outputs are refused. (While a graph is traced transformers makes a mask
      that masks nothing. The same forward has run without tracing by then.)
    """

    blocks: Any = field(repr=False)
    index: int

    def __call__(self, x: Tensor, *masks: Any, **options: Any) -> Tensor:
        self._check(masks, options)
        run = _Run(self.blocks, self.blocks.states(x), x) if self.index == 0 else _run.get()
        if run is None or run.blocks is not self.blocks or run.last is not x:
            raise UnsupportedModelError(
                f"something changes the tokens in front of layer {self.index}, or leaves a layer out: the patch runs "
                "the layers one after the other, so export the module without it"
            )
        run.last = self.blocks.handed_over(*next(run.states))
        _run.set(run if self.index + 1 < len(self.blocks) else None)
        return run.last

    def _check(self, masks: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        if any(self.blocks.num_prop) and self.blocks.restore is None:
            raise UnsupportedModelError(
                "transformers' models read full grids: patch them with gtp_export.apply(model, settings, restore=True)"
            )
        if options.get("output_attentions"):
            raise UnsupportedModelError("attention maps are asked for (output_attentions), and reducing has none")
        has_mask = any(isinstance(value, Tensor) for value in (*masks, *options.values()))
        if has_mask and not torch.compiler.is_exporting():
            raise UnsupportedModelError(
                "the layers get a mask (of attention, heads or experts), which cannot follow tokens that leave: leave "
                "it out"
            )


def _check(view: View) -> None:
    config = view.model.config
    if config._attn_implementation not in IMPLEMENTATIONS:
        raise UnsupportedModelError(
            f"{view.name} has attn_implementation {config._attn_implementation!r}, and the patch restates "
            f"{' and '.join(IMPLEMENTATIONS)}: call model.set_attn_implementation('sdpa')"
        )
    if getattr(config, "output_attentions", False):
        raise UnsupportedModelError(f"{view.name} gives attention maps (output_attentions): set it to False")
    if getattr(config, "num_experts", 1) > 1:
        raise UnsupportedModelError(f"{view.name} has an MLP of experts that a second input chooses (num_experts > 1)")
    if any(size % patch for size, patch in zip(view.patch_embed.img_size, view.patch_embed.patch_size, strict=True)):
        raise UnsupportedModelError(
            f"images of {view.patch_embed.img_size} pixels are not divided by patches of {view.patch_embed.patch_size}"
        )


def _projections(attn: Attention) -> tuple[Linear, Linear, Linear]:
    return tuple((part.weight, part.bias) for part in list(attn.linears)[:3])  # type: ignore[return-value]


FAMILIES.add(
    Family(
        name="transformers' ViTs",
        blocks={
            Block: BlockForm(
                attention_input=lambda block, x: block.norm1(x),
                attention_branch=lambda block, out: _behind(block.behind1, out),
                mlp_branch=lambda block, x: _behind(block.behind2, block.mlp(block.norm2(x))),
                runs_alone=False,
            )
        },
        attentions={Attention: _projections},
        holds=lambda model: isinstance(model, View),
        check=_check,
        plain=lambda blocks: nn.ModuleList(blocks.values()),
        install=lambda view, blocks, patched: view.install(blocks, patched),
    )
)
