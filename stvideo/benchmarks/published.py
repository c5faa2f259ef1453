"""Published figures, row by row, and the model here that each row stands for. Data only.

Numbers are kept as printed, so that the printed precision is known. GMACs are multiply-accumulates of one view of
one clip or image, which the papers call "FLOPs (G)".
"""

from __future__ import annotations

from typing import Any

from stvideo.benchmarks.rows import Block, Row

CLIP = (8, 224, 224)


STVIT = "Chang et al., CVPR 2023, arXiv 2303.08685"
EVIT = "Liang et al., ICLR 2022, arXiv 2202.07800"
LESS = (
    "keys and values of overlapping windows are projected once here, on the map, and then unfolded; the authors "
    "project the unfolded windows. The same mathematics for up to 5 % less"
)
LESS_AMOUNT = 0.05


def _stvit_deit() -> list[Row]:
    published = {
        "Tiny": ("1.26", ("0.53", "0.60", "0.71", "0.86")),
        "Small": ("4.58", ("1.91", "2.20", "2.62", "3.16")),
        "Base": ("17.58", ("7.31", "8.44", "10.04", "12.13")),
    }
    speedups = {16: "2.05", 36: "1.80", 64: "1.58", 100: "1.30"}
    rows = []
    for size, (dense_gmacs, reduced) in published.items():
        name, dense = f"deit_{size.lower()}_patch16_224", f"DeiT-{size[0]}"
        tolerance = 0.02 if size == "Tiny" else 0.01
        is_small = size == "Small"
        rows.append(Row(dense, name, gmacs=dense_gmacs, top1="79.8" if is_small else None, tolerance=tolerance))
        rows += [
            Row(
                f"STViT-{dense}, {tokens} tokens",
                f"stvit_{name}",
                dict(num_semantic_tokens=tokens),
                gmacs=gmacs,
                top1="79.8" if is_small and tokens == 16 else None,
                speedup=speedups[tokens] if is_small else None,
                dense=dense,
                tolerance=tolerance,
            )
            for tokens, gmacs in zip(speedups, reduced, strict=True)
        ]
    rows += [
        Row(
            f"STViT-DeiT-S, 16 tokens, {base} base layers",
            "stvit_deit_small_patch16_224",
            dict(num_semantic_tokens=16, layers=(base, base + 1)),
            gmacs=gmacs,
            top1=top1,
            dense="DeiT-S",
        )
        for base, gmacs, top1 in ((3, "1.56", "79.3"), (8, "3.30", "80.3"))
    ]
    return rows


def _stvit_swin() -> list[Row]:
    published = {
        "Tiny": ("4.5", ("2.99", "3.43", "4.06"), "3.14"),
        "Small": ("8.7", ("5.95", "6.53", "7.36"), "5.95"),
        "Base": ("15.4", ("10.48", "11.51", "12.97"), "10.48"),
    }
    rows = []
    for size, (dense_gmacs, reduced, moved) in published.items():
        name, dense = f"swin_{size.lower()}_patch4_window7_224", f"Swin-{size[0]}"
        less: dict[str, Any] = dict(dense=dense, tolerance=0.02, may_be_less=LESS_AMOUNT)
        rows.append(Row(dense, name, gmacs=dense_gmacs, tolerance=0.02))
        rows += [
            Row(
                f"STViT-{dense}, {tokens} per window",
                f"stvit_{name}",
                dict(tokens_per_window=tokens),
                gmacs=gmacs,
                **less,
            )
            for tokens, gmacs in zip((4, 9, 16), reduced, strict=True)
        ]
        moving = dict(tokens_per_window=9, move_stgm=True)
        rows.append(Row(f"STViT-{dense}, 9, Move STGM", f"stvit_{name}", moving, gmacs=moved, **less))
    return rows


def _stvitr() -> list[Row]:
    rows = []
    for size, dense_gmacs, gmacs, parameters, top1 in (
        ("Small", "8.7", "5.83", "49625518", "82.7"),
        ("Base", "15.4", None, "87812336", "83.2"),
    ):
        name, dense = f"swin_{size.lower()}_patch4_window7_224", f"Swin-{size[0]}"
        rows.append(Row(dense, name, gmacs=dense_gmacs))
        rows.append(
            Row(
                f"STViT-R-{dense}",
                f"stvitr_{name}",
                gmacs=gmacs,
                parameters=parameters,
                top1=top1,
                dense=dense,
                may_be_less=LESS_AMOUNT,
                note=None if gmacs else "the sources here print no GMACs for it",
            )
        )
    return rows


def _dense_prediction() -> list[Row]:
    rows = []
    for task, size, figures in (
        ("COCO", (1, 800, 1280), {"Small": ("194", "134"), "Base": ("343", "233")}),
        ("ADE20K", (1, 512, 512), {"Small": ("49", "34"), "Base": ("87", "60")}),
    ):
        for letter, (dense_gmacs, gmacs) in figures.items():
            name, dense = f"swin_{letter.lower()}_patch4_window7_224", f"Swin-{letter[0]} backbone, {task}"
            common: dict[str, Any] = dict(arguments=dict(features_only=True), size=size, tolerance=0.04)
            rows.append(Row(dense, name, gmacs=dense_gmacs, **common))
            rows.append(
                Row(
                    f"STViT-R-{dense}",
                    f"stvitr_{name}",
                    gmacs=gmacs,
                    dense=dense,
                    may_be_less=LESS_AMOUNT - 0.04,
                    **common,
                )
            )
    return rows


def _evit_deit() -> list[Row]:
    name, dense = "evit_deit_small_patch16_224", "DeiT-S"
    rates = (
        (1.0, "4.6", None, "79.8"),
        (0.9, "4.0", "1.09", "79.7"),
        (0.8, "3.5", "1.24", "79.2"),
        (0.7, "3.0", "1.50", "78.5"),
        (0.6, "2.6", "1.62", "76.8"),
        (0.5, "2.3", "1.85", "73.8"),
    )
    rows = [Row(dense, "deit_small_patch16_224", gmacs="4.6", top1="79.8")]
    for fuse in (True, False):
        rows += [
            Row(
                f"EViT-DeiT-S, keep {rate:g}{'' if fuse else ', not fused'}",
                name,
                dict(keep_rate=rate, fuse=fuse),
                gmacs=gmacs,
                speedup=speedup if fuse else None,
                top1=top1 if fuse else None,
                dense=dense,
            )
            for rate, gmacs, speedup, top1 in rates
            if fuse or rate < 1
        ]
    rows += [
        Row(
            f"EViT-DeiT-S, keep {rate:g}, {side} px",
            name,
            dict(keep_rate=rate, img_size=side),
            size=(1, side, side),
            gmacs=gmacs,
            dense=dense,
        )
        for rate, side, gmacs in (
            (0.5, 256, "3.1"), (0.5, 288, "3.9"), (0.5, 304, "4.4"), (0.6, 256, "3.5"), (0.6, 288, "4.5"),
            (0.7, 272, "4.6"),
        )
    ]  # fmt: skip
    return rows


def _evit_lvvit() -> list[Row]:
    name, dense = "lvvit_small_patch16_224", "LV-ViT-S"
    rows = [Row(dense, name, gmacs="6.6", tolerance=0.03)]
    for rate, side, gmacs in (
        (0.7, 224, "4.7"), (0.5, 224, "3.9"), (0.7, 256, "6.2"), (0.7, 272, "7.1"), (0.8, 256, "6.9"),
        (0.9, 240, "6.8"), (0.5, 304, "7.4"), (1.0, 384, "21.9"), (0.7, 448, "21.5"),
    ):  # fmt: skip
        label = f"{dense}, {side} px" if rate == 1 else f"EViT-{dense}, keep {rate:g}, {side} px"
        rows.append(
            Row(
                label,
                name if rate == 1 else f"evit_{name}",
                dict(img_size=side) if rate == 1 else dict(keep_rate=rate, img_size=side),
                size=(1, side, side),
                gmacs=gmacs,
                dense=f"{dense}, 384 px" if side == 448 else None if rate == 1 else dense,
                tolerance=0.03,
            )
        )
    return rows


def _timesformer() -> list[Row]:
    name, dense = "timesformer_base_patch16_224", "TimeSformer-B, 8 x 224"
    by_hand = "worked out by hand from the definitions"
    rows = [
        Row(
            label,
            name,
            dict(num_classes=400, num_frames=size[0], img_size=size[1]),
            size=size,
            gmacs=gmacs,
            derived=f"{teraflops} T for 3 views",
            parameters="121.6" if size == CLIP else None,
            top1=top1,
        )
        for label, size, gmacs, teraflops, top1 in (
            (dense, CLIP, "197", "0.59", "78.0"),
            ("TimeSformer-HR, 16 x 448", (16, 448, 448), "1703", "5.11", "79.7"),
            ("TimeSformer-L, 96 x 224", (96, 224, 224), "2380", "7.14", "80.7"),
        )
    ]
    semantic: dict[str, Any] = dict(num_classes=400, layers=(4, 5), grid=(8, 4, 4))
    rows.append(Row("STGM (8, 4, 4) at 4-5", f"stvit_{name}", semantic, CLIP, "80.0", derived=by_hand, dense=dense))
    for fuse, figures in ((True, ("172.4", "150.0", "131.3", "100.7")), (False, ("171.1", "148.7", "130.0", "99.5"))):
        rows += [
            Row(
                f"EViT tube, keep {rate:g}{'' if fuse else ', not fused'}",
                f"evit_{name}",
                dict(num_classes=400, keep_rate=rate, fuse=fuse, scope="tube"),
                CLIP,
                gmacs,
                derived=by_hand,
                dense=dense,
            )
            for rate, gmacs in zip((0.9, 0.8, 0.7, 0.5), figures, strict=True)
        ]
    return rows


def _video_swin() -> list[Row]:
    size = (32, 224, 224)
    rows = []
    for letter, gmacs, top1, reduced in (
        ("Tiny", "88", "78.8", ("64", "78.5")),
        ("Small", "166", "80.6", ("121", "80.3")),
        ("Base", "282", "82.7", None),
    ):
        name, dense = f"video_swin_{letter.lower()}_patch244_window877_224", f"Video Swin-{letter[0]}"
        common: dict[str, Any] = dict(arguments=dict(num_classes=400), size=size, tolerance=0.03)
        rows.append(Row(dense, name, gmacs=gmacs, top1=top1, **common))
        if reduced:
            rows.append(
                Row(
                    f"STViT-{dense}",
                    f"stvit_{name}",
                    gmacs=reduced[0],
                    derived=f"-27 % of {gmacs}",
                    top1=reduced[1],
                    speedup="1.25",
                    dense=dense,
                    may_be_less=LESS_AMOUNT - 0.03,
                    **common,
                )
            )
    return rows


def _others() -> list[Row]:
    return [
        Row(label, gmacs=gmacs, top1=top1, note=note)
        for label, gmacs, top1, note in (
            ("DynamicViT on DeiT-S, keep 0.7", "2.9", "79.3", "ImageNet"),
            ("Evo-ViT on DeiT-S", "3.0", "79.4", "ImageNet"),
            ("PS-ViT on DeiT-S", "2.6", "79.4", "ImageNet"),
            ("A-ViT on DeiT-S", "3.6", "78.6", "ImageNet"),
            ("IA-RED2 on DeiT-S", "3.2", "79.1", "ImageNet"),
            ("DGE on DeiT-S", "3.1", "79.7", "ImageNet"),
            ("TokenLearner", "1.9", "76.1", "ImageNet"),
            ("IA-RED2 on DeiT-B", "11.8", "80.3", "ImageNet"),
            ("DynamicViT on DeiT-B", "11.2", "81.3", "ImageNet"),
            ("PS-ViT on DeiT-B", "9.8", "81.5", "ImageNet"),
            ("Evo-ViT on DeiT-B", "10.2", "81.3", "ImageNet"),
            ("EViT on DeiT-B", "8.7", "80.0", "ImageNet"),
            ("TDKE, 3 views", "306", "77.8", "Kinetics-400"),
            ("STTS on Video Swin-B", "181", "81.4", "Kinetics-400; 82.7 at 282 without"),
            ("ATS on TimeSformer-L", None, None, "GMACs -50.8 %, top-1 -0.2"),
            ("ToMe on ViT-L (MAE, video)", None, None, "throughput 2.2x, top-1 -0.2 to -0.3, no training"),
            ("RLT, fine-tuning", None, None, "time -30 %, throughput +35 %, no loss"),
            ("SVT", None, None, "GMACs -55 %, top-1 +0.2"),
            ("STA", None, None, "GMACs more than -30 %, top-1 -0.2, no training"),
        )
    ]


PUBLISHED: tuple[Block, ...] = (
    Block("deit", "STViT on DeiT, ImageNet", f"{STVIT}; speed-ups in images per second", _stvit_deit()),
    Block("swin", "STViT on Swin, ImageNet", STVIT, _stvit_swin(), (LESS,)),
    Block("stvitr", "STViT-R on Swin, ImageNet", f"{STVIT}, and the authors' log", _stvitr(), (LESS,)),
    Block(
        "dense-prediction",
        "STViT-R backbones, COCO at 800 x 1280 and ADE20K at 512 x 512",
        STVIT,
        _dense_prediction(),
        (
            "feature pyramids without necks and heads, maps padded to whole windows; how the paper's tool counted "
            "padding is not printed, hence the wider tolerance of 4 %",
            LESS,
        ),
    ),
    Block(
        "evit",
        "EViT on DeiT-S, ImageNet",
        EVIT,
        _evit_deit(),
        (
            "top-1 is that of the trained DeiT-S with tokens reorganized and no further training",
            "the paper prints one figure for fused and not fused",
        ),
    ),
    Block("lvvit", "EViT on LV-ViT-S, ImageNet", f"{EVIT}; Jiang et al., arXiv 2104.10858", _evit_lvvit()),
    Block(
        "timesformer",
        "TimeSformer and its reductions, Kinetics-400, one view",
        "Bertasius et al., ICML 2021, arXiv 2102.05095 (dense rows)",
        _timesformer(),
        (
            "* dense rows: the paper's TFLOPs for 3 views (0.59, 5.11, 7.14) over 3; reduced rows: worked out by hand "
            "from the definitions, no paper prints them. The class token stays",
        ),
    ),
    Block(
        "video-swin",
        "STViT on Video Swin, Kinetics-400, one view of 32 x 224 x 224",
        f"Liu et al., arXiv 2106.13230; {STVIT}",
        _video_swin(),
        ("* -27 % of the dense figure, and its top-1 less 0.3, as published; top-1 from 4 x 3 views", LESS),
    ),
    Block("others", "Other methods, as published", "the papers of the methods", _others()),
)
