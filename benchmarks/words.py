"""The words of the pages that run.py writes."""

ACCURACY = """\
# {title}: accuracy at equal MACs

{images} images, eager PyTorch, without tuning. Figures are means over the images ±
their standard errors.

![plot]({plot}.svg)

*Amount* is the number of tokens that GTP removes per layer. All settings of one amount have nearly the same MACs.
*MACs* is relative to the dense model. *Divergence* is the Kullback-Leibler divergence of the dense to the reduced class
probabilities in nats. *Agreement* is the share of images with the dense model's prediction. *Change* is top-1 minus the
dense model's. It is paired over the images, so its standard error is smaller than that of top-1.
"""
THRESHOLDS = """\
## Thresholds

`num_prop` {amount}. *Entries kept*: entries of the attention map, mean and standard deviation over images, layers and
heads. The next columns compare with the exact threshold of the same sparsity: images that keep the same tokens in all
layers, tokens that both keep after the last layer ({chance:.0f} % by chance), and the largest difference of an image's
logits as a share of max|logit|, mean and largest over images. *None* is sparsity 1, without a threshold.
"""
LATENCY = """\
# Latency at equal MACs, batch {batch}

How fast are GTP and the baselines at equal MACs? All methods of one *num_prop* and the dense model are loaded anew and
timed in interleaved runs, in one process, on one thread, several times; the middle one counts. Weights are random,
which does not affect time. All figures are in [{data}]({data}). To compare machines, use ratios, not milliseconds.

- *Ratio*: p50 latency relative to the dense model, which is exported with the same optimisations.
- *Share realised*: the share of the saved MACs that becomes saved time, (1 - ratio) / (1 - MACs). It may exceed 100 %:
  attention's softmax and the layer norms are no MACs, and shorter sequences fit the caches better. With few removed
  tokens both terms are small, so noise weighs more.
- *Overhead*: p50 latency relative to *drop*, which slices off the same number of tokens without selecting them; for
  *measured*, relative to *drop-measured*.
- *MACs*: relative to the dense model; those of *measured* differ slightly, since its token counts suit tiles.

*gtp* is the paper's form of GTP, *gtp-cls* the same with `--selection CLSAttnMax`, *prune* the same with
`--propagation None`, *measured* is `--preset measured`, and *drop-measured* is *drop* with its schedule. *tome* is
token merging, which merges at most half of a layer's tokens, so at the largest *num_prop* it removes fewer in the last
layers.

With `num_prop` 8 and batch 1, *measured* is the default of today, `safe`: six steps, each with its own selection. The
other rows of *measured* and *drop-measured* are of an earlier default: tokens leave in two layers, and merge by the
plain mean (`--schedule steps:2+aligned --propagation Merge`). The rows of deit_b have three rounds in each loading, and
scatter by 0.04.
"""
RESULTS = """\
# Accuracy against measured latency

How much do the outputs change when a model gets faster? *Latency* is the p50 of the exported graph relative to the
dense baseline: interleaved runs in one process, one thread, batch 1. *Divergence* is the Kullback-Leibler divergence of
the dense model's class probabilities to those of the reduced model, in nats: the mean over all test images, in eager
PyTorch. Lower is closer to the dense model. No model is retrained, and settings are the same for all models.

*measured* is `--preset measured`, the default, which removes tokens in up to six layers. *fitted* is the same with
`--schedule fitted`, on calibration images that are none of the test images. *two-steps* removes tokens in two layers
(`--schedule steps:2+aligned`, the earlier default). *tome* is token merging as published, in every layer, and *tome-2*
is token merging in the layers of *measured*. *paper* is `--preset paper`, *prune* is the paper's selection without
propagation, and *drop* slices off the last tokens, all in every layer. Methods are measured at the same MACs budgets,
if they can meet them. Plots and tables show each method at its measured latency. The tables interpolate between two
measured points: the logarithm of the divergence, and top-1, linear in latency. A dash means that a method has no point
on one side of this latency. In models as small as these, a method that removes tokens in every layer may never become
that fast, or not faster than the dense model at all. The tables are for shares of 0.9, 0.75, 0.6 and 0.5, and leave out
those that no method reaches.
To compare machines, use ratios, not milliseconds. All points are in [{data}]({data}).

A trained ViT-S/14 has its own table at equal latency, and curves by layer, in
[fitting.md](fitting.md#the-same-at-equal-latency).
"""
RESULTS_LIMITS = """\
## Limits of these results

- The CIFAR-10 model is small (64 patches, width 128) and was trained to 67 % top-1 only. We have not measured ImageNet.
  On ImageNet, the paper reports 81.46 % top-1 for DeiT-B with its own form and tuned settings, and 81.8 % for the dense
  model.
- The fewer tokens and channels a model has, the larger is the share of its latency that selection takes. On DeiT-S the
  methods are closer in latency: see [cost-of-selection.md](cost-of-selection.md).
- A run of the dense digits model takes 1.5 ms. On OpenVINO in bf16, selection takes more time than it saves there: with
  0.7 of the MACs, `measured` takes 1.09 of the dense model's time, token merging 1.50 and the paper's form 1.40.
- The digits model with average pooling is smaller still. On OpenVINO, every method that selects tokens is slower than
  the dense model there. With 0.55 of its MACs, OpenVINO crashes on the paper's form
  ([operations.md](../../docs/operations.md)).
- To reproduce the paper's published figures, use `--preset paper` with the sparsity and alpha that its authors used for
  DeiT. This form is tested against outputs of their code.
- Measure on your model and your data: `gtp-export validate DIR --data IMAGES` shows accuracy compared with the dense
  baseline.
"""
PRECISION = """\
# Precisions compared: latency, accuracy, size and memory

How do int8, fp16, bf16 and weights in few bits change the dense model and GTP? All figures are in
[{data}]({data}). A model has tables only for what was measured on it.

- Each column after *precision* is a file: the dense model, or GTP with the given share of the dense model's MACs.
  *measured* is `--preset measured`, *paper* is `--preset paper`. An empty cell was not measured.
- *Latency* is the p50 latency relative to that of the dense fp32 file on the same runtime, one thread, batch 1. The
  files of a row are timed in turn with the dense fp32 file, in one process. In brackets is the *share realised*: the
  share of the saved MACs that becomes saved time, relative to the dense file of the same precision. Weights of DeiT are
  random, which does not affect time.
- *Top-1* is given in percent for dense fp32. The other cells are changes in percentage points, with the standard error
  of the paired differences.
- *Divergence* is the mean Kullback-Leibler divergence of the class probabilities of the fp32 file to those of the file,
  in millinats (0.001 nats). *Agreement* is the share of images for which both files have the same top-1 class.
- The *fp32 twin* of a file is the same model with the same token reduction in fp32. Differences from it show what the
  precision alone costs.
- *int8* is a file that `gtp-export quantize` makes in the form of the runtime
  ([precision.md](../../docs/precision.md)). *int8 and bf16* is this file run with `--compute bf16`, and *bf16* is the
  fp32 file run with it. ONNX Runtime has no bf16 on CPUs. OpenVINO reads fp16 files, and computes them in fp32 on CPUs
  without fp16.
"""
NOTES = {  # after the table of a group
    "methods": """\
*gtp* is the paper's form, *gtp-cls* the same with `--selection CLSAttnMax`, *prune* with `--propagation None`. *mean*
(`--propagation Mean`) replaces the removed tokens with their mean, so it removes one more token in each layer.
*measured* is `--preset measured`, which removes tokens in a few layers, and *measured-each* the same in every layer.
ToMe and PiToMe merge at most half of a layer's tokens, so they remove fewer in the last layers if `num_prop` is larger.
PiToMe (arXiv 2405.16148) and ATC (arXiv 2409.11923, average linkage, on keys as in the paper and on the tokens) are our
implementations of the papers, for accuracy only.
""",
    "schedules": """\
A schedule is missing where none of its settings is close to these MACs.
""",
    "selections": """\
`CLSAttn` needs one row of the attention map, so runtimes can still fuse attention. The others need the whole map.
""",
}
COMMANDS = """\
## How this page is made

```
{commands}
```
"""
GROWTH = """\
# Latency, export time and memory by tokens and batch size

How do latency, export time and memory grow with the number of tokens and with the batch size? Measured on a machine
with {cores} cores ({machine}). Weights are random, which does not affect time or memory. GTP is
`--preset {preset} --num-prop N`, and *N* is proportional to the number of tokens, so the same share of them is
removed.{depth_words}

![plot]({plot}.svg)
"""
GROWTH_LATENCY = """\
## Latency

{model} on ONNX Runtime, one thread: milliseconds per image (p50). Runs of GTP and of the dense baseline are
interleaved. *Ratio* is GTP over dense. *Share realised* is the share of the saved MACs that becomes saved time.
"""
GROWTH_EXPORTS = """\
## The exporter

`gtp-export export MODEL --weights random --no-check`, with the preset, in a new process: the whole command, with
imports and both graphs. *CPU seconds* exclude the time of other processes. *Peak* is the largest resident memory.
"""
