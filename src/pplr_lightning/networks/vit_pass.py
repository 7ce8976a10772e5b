"""ViTs with tokens of parts, as PASS trained them."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from pplr_lightning.networks.registration import register

# PASS (Zhu et al., ECCV 2022) has three more tokens beside the class token, each with a position of
# its own. To timm these are register tokens, which the map leaves out.
for _name, _width, _heads in (("vit_small_pass", 384, 6), ("vit_base_pass", 768, 12)):
    _published = {
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "input_size": (3, 256, 128),
        "fixed_input_size": True,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    _architecture = {"embed_dim": _width, "depth": 12, "num_heads": _heads, "patch_size": 16}
    register(VisionTransformer, _name, _published, reg_tokens=3, **_architecture)
