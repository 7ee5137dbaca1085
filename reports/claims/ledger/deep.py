"""Section 5.2: deep models of images, and what their latent variables do."""

from reports import paper
from reports.claims.claim import Claim, Place, better, equivalent, lies, not_worse, value
from reports.claims.measures import Fall, Rise, Selected

CIFAR = Place("cifar10", "paper", "cifar10", 300_000, needs="a GPU, CIFAR-10 and Inception's weights")
MNIST = Place("mnist", "paper", "mnist", 100_000, seeds="0-4", needs="a GPU and MNIST")
SMALL = Place("deep_digits", "quick", "digits", 3_000, seeds="0-4")
NARROW = Place("deep_digits", "latents", "latents", 1_500, seeds="0-4")
DECODER, FITTED = "BiMDSM-0 of a decoder", "BiMDSM-0 + GMM of a decoder"
FID = Selected("test/fid")  # by the task's rule at the checkpoint with the best FID of 1,000 samples: early stopping
_SIZES = (20, 50, 100)
LATENT = [f"BiMDSM-0 [hidden={m}]" for m in _SIZES]
_PRINTED = {"MDSM": "MDSM (their code)"} | {name: f"BiMDSM ({size})" for name, size in zip(LATENT, _SIZES, strict=True)}
_ORDERS = "a hundredfold: from 10⁴ to 10² at least, the paper's own words"
_SEEN = "a tenth: a rise that is seen in a figure"
_NOTICED = "0.5: less than the smallest difference between rows of Table 2 that the paper reads something into (0.76)"
_SHARE = Selected("latent/share_of_h", said="share of the samples' variance that h makes", up=True)
_PROBE = Selected("latent/linear_probe_accuracy", said="accuracy of a linear classifier on E[h|v]")
_KEPT = Selected("class_kept/share", said="share of samples given h that are of the class of h's image", up=True)
_SAMPLES_SHARE = Selected("class_kept/share_of_h", said="share of h in the variance of samples given h", up=True)
_MMD = "0.01 of the squared MMD by pixels, which is coarse: samples of the paper's EBLVM have 0.016"
_POSTERIOR = "val/posterior_fisher_divergence"


def _posterior_falls(name: str, at: Place, variants: list[str], where: str) -> Claim:
    return Claim(
        f"{name}-posterior",
        where,
        f"The posterior's Fisher divergence falls by two orders of magnitude in training ({name})",
        "value in a range",
        _ORDERS,
        lies(at, Fall(_POSTERIOR), variants, low=100.0),
    )


CLAIMS = (
    Claim(
        "cifar10-samples",
        "Section 5.2, Figure 4, Table 2",
        "Samples of the EBLVM (50 latent units) and of the EBM are comparable",
        "equivalence",
        "3 of FID, about the standard deviation of one run that the paper prints (2.60 and 2.76)",
        equivalent(CIFAR, FID, LATENT[1], ["MDSM"], 3.0),
    ),
    Claim(
        "cifar10-latents",
        "Section 5.2, Table 2",
        "Latent variables can improve FID: with 20, 50 or 100 of them it is better than MDSM's",
        "superiority",
        _NOTICED,
        [one for ours in LATENT for one in better(CIFAR, FID, ours, ["MDSM"], 0.5)],
        some=True,
    ),
    *(
        Claim(
            f"cifar10-fid-{'mdsm' if variant == 'MDSM' else variant.partition('=')[2].rstrip(']')}",
            "Table 2",
            f"The FID of {variant} with early stopping is {paper.TABLE2[label][1]}",
            "printed value",
            f"{paper.TABLE2[label][2]}, the standard deviation over runs that the paper prints beside it",
            value(CIFAR, FID, variant, float(paper.TABLE2[label][1] or 0), float(paper.TABLE2[label][2] or 0)),
        )
        for variant, label in _PRINTED.items()
    ),
    Claim(
        "cifar10-dimension",
        "Table 2; second review",
        "More latent units do not help: FID with 50 and with 100 is no better than with 20",
        "non-inferiority",
        _NOTICED,
        not_worse(CIFAR, FID, LATENT[0], LATENT[1:], 0.5),
    ),
    _posterior_falls("cifar10", CIFAR, LATENT, "Section 5.2, Figure 5 d"),
    _posterior_falls("mnist", MNIST, LATENT, "Section 5.2, Figure 5 c"),
    _posterior_falls("digits", SMALL, ["BiMDSM-0"], "Section 5.2, of other data"),
    Claim(
        "cifar10-instability",
        "Section 5.2, Figure 5 d; second review",
        "Learning curves rise at times: the posterior's divergence does, with 20, 50 or 100 latent units",
        "value in a range",
        _SEEN,
        lies(CIFAR, Rise(_POSTERIOR), LATENT, low=1.1),
        some=True,
    ),
    Claim(
        "digits-instability",
        "Section 5.2, of other data; second review",
        "Learning curves rise at times: the posterior's divergence does, on 8 × 8 digits",
        "value in a range",
        _SEEN,
        lies(SMALL, Rise(_POSTERIOR), ["BiMDSM-0"], low=1.1),
    ),
    Claim(
        "cifar10-stability",
        "Section 5.2, Figure 5 b",
        "The higher level's objective decreases stably",
        "value in a range",
        _SEEN,
        lies(CIFAR, Rise("train/objective"), LATENT, high=1.1),
    ),
    Claim(
        "digits-latents-used",
        "First, third and fourth review",
        "Samples depend on h: a tenth of their variance is h's",
        "value in a range",
        "a tenth: of less nobody would see it on a sheet of samples",
        lies(
            SMALL,
            _SHARE,
            ["BiMDSM-0"],
            low=0.1,
        ),
    ),
    Claim(
        "digits-latents-features",
        "Appendix C.2; third review",
        "h is a representation: a linear classifier on E[h|v] is right in nine of ten cases",
        "value in a range",
        "0.9: on the pixels themselves it is right in 0.96 of the cases",
        lies(
            SMALL,
            _PROBE,
            ["BiMDSM-0"],
            low=0.9,
        ),
    ),
    Claim(
        "decoder-latents-used",
        "First, third and fourth review; the model is ours",
        "By BiMDSM, samples of a model whose h is the only way to v depend on h: a tenth of their variance is h's",
        "value in a range",
        "a tenth, as of the paper's model",
        lies(NARROW, _SAMPLES_SHARE, [DECODER], low=0.1),
    ),
    Claim(
        "decoder-latents-features",
        "Appendix C.2; third review; the model is ours",
        "By BiMDSM, h of such a model is a representation: a linear classifier on E[h|v] is right in nine of ten cases",
        "value in a range",
        "0.9, as of the paper's model",
        lies(NARROW, _PROBE, [DECODER], low=0.9),
    ),
    Claim(
        "decoder-class-kept",
        "Third and fourth review; the model is ours",
        "By BiMDSM, samples of such a model given h are of the class of h's image in seven of ten cases",
        "value in a range",
        "0.7: the same classifier is right in 0.98 of the cases on test images, and in a tenth by chance",
        lies(NARROW, _KEPT, [DECODER], low=0.7),
    ),
    Claim(
        "decoder-samples",
        "Third review; the model is ours",
        "Samples of such a model are no worse than those of the paper's EBLVM, both by BiMDSM",
        "non-inferiority",
        _MMD,
        not_worse(NARROW, Selected("test/mmd"), DECODER, ["BiMDSM-0"], 0.01),
    ),
    Claim(
        "decoder-samples-fitted",
        "Third review; the model and the method are ours",
        "With a mixture in the place of N(0, I), fitted to its codes after training, they are no worse",
        "non-inferiority",
        _MMD,
        not_worse(NARROW, Selected("test/mmd"), FITTED, ["BiMDSM-0"], 0.01),
    ),
)
