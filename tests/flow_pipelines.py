"""Builds a tiny pipeline with random weights of each flow-matching family, without a download.

Every pipeline has its family's real classes, scheduler, latent channels and prompt template, at
least two blocks of each kind, and widths that differ, so that a mistaken axis does not fit. It
draws images whose sides are multiples of 16 and takes 512 tokens of text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests import flow_parts as parts
from tests.tiny import clip_parts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def z_image() -> DiffusionPipeline:
    """Return a ZImagePipeline.

    Its text encoder is a bare Qwen3Model, its tokenizer keeps a chat template in a file of its
    own, and prompts and latents are lists of one tensor an image. The time embedder's hidden
    width is fixed at 1024, which is most of this pipeline.
    """
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    tokenizer = parts.qwen_tokenizer(parts.CHAT_TEMPLATE)
    return parts.filled(
        ZImagePipeline(
            scheduler=parts.scheduler(6.0),
            vae=parts.flux_vae(),
            text_encoder=parts.qwen3(tokenizer, width=40, layers=3),
            tokenizer=tokenizer,
            transformer=ZImageTransformer2DModel(
                dim=48,
                n_layers=2,
                n_refiner_layers=2,
                n_heads=3,
                n_kv_heads=3,
                cap_feat_dim=40,
                axes_dims=[4, 6, 6],
                axes_lens=[1536, 512, 512],
            ),
        )
    )


def sd3() -> DiffusionPipeline:
    """Return a StableDiffusion3Pipeline in the manner of SD3.5 medium.

    Two CLIPs, both with a projection, stand side by side in 80 of the 96 channels that T5 fills,
    and the tokens of T5 follow theirs. Queries and keys have norms; two of the five blocks attend
    twice, and the last does not update the text. The second tokenizer pads with another token.
    """
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    tokenizer, text_encoder = clip_parts(width=32, projection=24)
    tokenizer_2, text_encoder_2 = clip_parts(width=48, projection=40)
    tokenizer_2.pad_token = "!"
    tokenizer_3 = parts.t5_tokenizer()
    return parts.filled(
        StableDiffusion3Pipeline(
            scheduler=parts.scheduler(3.0),
            vae=parts.sd3_vae(),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=parts.t5_encoder(tokenizer_3, width=96),
            tokenizer_3=tokenizer_3,
            transformer=SD3Transformer2DModel(
                sample_size=8,
                num_layers=5,
                attention_head_dim=8,
                num_attention_heads=3,
                joint_attention_dim=96,
                caption_projection_dim=24,
                pooled_projection_dim=24 + 40,
                pos_embed_max_size=16,
                dual_attention_layers=(0, 1),
                qk_norm="rms_norm",
            ),
        )
    )


def flux_dev() -> DiffusionPipeline:
    """Return a FluxPipeline in the manner of FLUX.1 dev and Krea dev: guidance is an input.

    CLIP gives only its pooled embedding, and T5 the tokens. Latents are packed 2×2.
    """
    return _flux(
        parts.scheduler(3.0, longest=4096),
        guidance_embeds=True,
    )


def flux_schnell() -> DiffusionPipeline:
    """Return a FluxPipeline in the manner of FLUX.1 schnell: no guidance at all, and no shift."""
    return _flux(parts.scheduler(1.0), guidance_embeds=False)


def flux_kontext() -> DiffusionPipeline:
    """Return a FluxKontextPipeline: FLUX.1 dev with the latents of a reference beside the noise."""
    from diffusers import FluxKontextPipeline

    return _flux(parts.scheduler(3.0, longest=4096), guidance_embeds=True, kind=FluxKontextPipeline)


def _flux(scheduler: Any, *, guidance_embeds: bool, kind: Any = None) -> DiffusionPipeline:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    tokenizer, text_encoder = clip_parts(width=24)
    tokenizer_2 = parts.t5_tokenizer()
    return parts.filled(
        (kind or FluxPipeline)(
            scheduler=scheduler,
            vae=parts.flux_vae(),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=parts.t5_encoder(tokenizer_2, width=40),
            tokenizer_2=tokenizer_2,
            transformer=FluxTransformer2DModel(
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=40,
                pooled_projection_dim=24,
                guidance_embeds=guidance_embeds,
                axes_dims_rope=(4, 6, 6),
            ),
        )
    )


def qwen_image() -> DiffusionPipeline:
    """Return a QwenImagePipeline.

    The text encoder is a Qwen2_5_VLForConditionalGeneration with eyes that stay shut. Texts of a
    batch are padded to the longest, and their mask is None where nothing is padded. The VAE is
    one of videos.
    """
    from diffusers import QwenImagePipeline

    return _qwen(QwenImagePipeline, parts.qwen_tokenizer())


def qwen_image_edit() -> DiffusionPipeline:
    """Return a QwenImageEditPipeline: the text encoder sees the reference as large as the VAE."""
    from diffusers import QwenImageEditPipeline

    tokenizer = parts.qwen_tokenizer(sees=True)
    return _qwen(QwenImageEditPipeline, tokenizer, processor=parts.qwen_processor(tokenizer))


def qwen_image_edit_plus() -> DiffusionPipeline:
    """Return a QwenImageEditPlusPipeline in the manner of 2511: several references, whose tokens
    the transformer modulates as those of images without noise."""
    from diffusers import QwenImageEditPlusPipeline

    tokenizer = parts.qwen_tokenizer(sees=True)
    processor = parts.qwen_processor(tokenizer)
    return _qwen(QwenImageEditPlusPipeline, tokenizer, zero_cond_t=True, processor=processor)


def _qwen(
    kind: Any, tokenizer: Any, *, zero_cond_t: bool = False, **components: Any
) -> DiffusionPipeline:
    from diffusers import QwenImageTransformer2DModel

    return parts.filled(
        kind(
            scheduler=parts.scheduler(1.0, longest=8192, max_shift=0.9, shift_terminal=0.02),
            vae=parts.qwen_vae(),
            text_encoder=parts.qwen25_vl(tokenizer, width=40, layers=3),
            tokenizer=tokenizer,
            transformer=QwenImageTransformer2DModel(
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=40,
                axes_dims_rope=(4, 6, 6),
                zero_cond_t=zero_cond_t,
            ),
            **components,
        )
    )


def flux2_klein() -> DiffusionPipeline:
    """Return a Flux2KleinPipeline in the manner of klein-base, which is not distilled.

    The text encoder is a Qwen3ForCausalLM of 28 blocks, since the pipeline reads the hidden
    states of the 9th, 18th and 27th and puts them side by side. Latents are normalized by the
    VAE's batch norm, and `output_type="latent"` gives them unpacked and no longer normalized.
    """
    from diffusers import Flux2KleinPipeline

    tokenizer = parts.qwen_tokenizer(parts.CHAT_TEMPLATE)
    return parts.filled(
        Flux2KleinPipeline(
            scheduler=parts.scheduler(3.0, longest=4096),
            vae=parts.flux2_vae(),
            text_encoder=parts.qwen3(tokenizer, width=20, layers=28, head=True),
            tokenizer=tokenizer,
            transformer=_flux2_transformer(text_width=3 * 20, guidance_embeds=False),
            is_distilled=False,
        )
    )


def flux2_dev() -> DiffusionPipeline:
    """Return a Flux2Pipeline in the manner of FLUX.2 dev: guidance is an input.

    The text encoder is a Mistral3ForConditionalGeneration of 31 blocks, read at the 10th, 20th and
    30th. A plain tokenizer, whose template reads messages of parts, stands where the real one has
    a PixtralProcessor: that class needs torchvision. Latents come out of `output_type="latent"`
    packed and normalized, unlike klein's.
    """
    from diffusers import Flux2Pipeline

    tokenizer = parts.qwen_tokenizer(parts.PARTS_TEMPLATE)
    return parts.filled(
        Flux2Pipeline(
            scheduler=parts.scheduler(3.0, longest=4096),
            vae=parts.flux2_vae(),
            text_encoder=parts.mistral3(tokenizer, width=16, layers=31),
            tokenizer=tokenizer,
            transformer=_flux2_transformer(text_width=3 * 16, guidance_embeds=True),
        )
    )


def _flux2_transformer(*, text_width: int, guidance_embeds: bool) -> Any:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=text_width,
        timestep_guidance_channels=28,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )


def krea2() -> DiffusionPipeline:
    """Return a Krea2Pipeline in the manner of Krea 2 Raw, which is not distilled.

    The text encoder is a bare Qwen3VLModel; `model_index.json` says which of its hidden states
    the transformer fuses (three here, twelve in the real one). Its text is padded before the end
    of the template, its norms add 1 to their scale, and four query heads share two of keys.
    """
    from diffusers import Krea2Pipeline, Krea2Transformer2DModel

    tokenizer = parts.qwen_tokenizer()
    return parts.filled(
        Krea2Pipeline(
            scheduler=parts.scheduler(1.0, longest=6400),
            vae=parts.qwen_vae(),
            text_encoder=parts.qwen3_vl(tokenizer, width=40, layers=4),
            tokenizer=tokenizer,
            transformer=Krea2Transformer2DModel(
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=88,
                timestep_embed_dim=28,
                text_hidden_dim=40,
                num_text_layers=3,
                text_num_attention_heads=5,
                text_num_key_value_heads=5,
                text_intermediate_size=72,
                axes_dims_rope=(4, 6, 6),
            ),
            text_encoder_select_layers=(1, 2, 4),
            is_distilled=False,
        )
    )


def chroma() -> DiffusionPipeline:
    """Return a ChromaPipeline.

    T5 is the only text encoder, and is told where its text is padded; the transformer attends to
    the first padded token and not to the others. One network gives all blocks their modulation.
    """
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    tokenizer = parts.t5_tokenizer()
    return parts.filled(
        ChromaPipeline(
            scheduler=parts.scheduler(1.0),
            vae=parts.flux_vae(),
            text_encoder=parts.t5_encoder(tokenizer, width=40),
            tokenizer=tokenizer,
            transformer=ChromaTransformer2DModel(
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=40,
                axes_dims_rope=(4, 6, 6),
                approximator_num_channels=64,
                approximator_hidden_dim=48,
                approximator_layers=2,
            ),
        )
    )


FLOW_PIPELINES: dict[str, Callable[[], DiffusionPipeline]] = {
    "z-image": z_image,
    "sd3": sd3,
    "flux-dev": flux_dev,
    "flux-schnell": flux_schnell,
    "qwen-image": qwen_image,
    "flux2-klein": flux2_klein,
    "flux2-dev": flux2_dev,
    "krea2": krea2,
    "chroma": chroma,
}
"""What builds the pipeline of each family of text to image, by its name."""

EDIT_PIPELINES: dict[str, Callable[[], DiffusionPipeline]] = {
    "flux-kontext": flux_kontext,
    "flux2-klein": flux2_klein,
    "flux2-dev": flux2_dev,
    "qwen-image-edit": qwen_image_edit,
    "qwen-image-edit-plus": qwen_image_edit_plus,
}
"""What builds the pipeline of each family that takes reference images, by its name."""
