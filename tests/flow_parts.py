"""Builds the parts that the tiny pipelines of flow-matching families share, and fills them."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from tools.tiny_base.captions import WORDS
from tools.tiny_base.tokenizer import byte_symbols, learn_merges

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn
    from transformers import PreTrainedModel, T5Tokenizer

# The words of the prompt template of Qwen-Image and Krea 2: their pipelines drop its first 34
# tokens, so it must have 34, which it does when each word and each comma is one token.
TEMPLATE_WORDS = (
    "system", "Describe", "the", "image", "by", "detailing", "color", "shape", "size", "texture",
    "quantity", "text", "spatial", "relationships", "of", "objects", "and", "background", "user",
    "assistant",
)  # fmt: skip

# The further words of the prompt template of Qwen-Image-Edit, whose pipelines drop 64 tokens.
EDIT_WORDS = (
    "key", "features", "input", "then", "explain", "how", "'s", "instruction", "should", "alter",
    "or", "modify", "Generate", "a", "new", "that", "meets", "requirements", "while",
    "maintaining", "consistency", "with", "original", "where", "appropriate", "(", "),",
)  # fmt: skip

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Qwen3's chat template for one question; without thinking, it ends in an empty thought."""

PARTS_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{% for part in message.content %}{{ part.text }}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
"""A chat template for messages whose content is a list of parts, as FLUX.2 dev writes them."""


def qwen_tokenizer(chat_template: str | None = None, *, sees: bool = False) -> Any:
    """Return a Qwen2Tokenizer of 256 bytes and of the words of captions and of the templates.

    A word is one token, with or without the space before it; no text is unknown.

    Args:
        chat_template: Template of chats.
        sees: Whether it has the tokens of images, and the words of the template of edits.
    """
    from transformers import Qwen2Tokenizer

    words = sorted({*WORDS, *TEMPLATE_WORDS, *(EDIT_WORDS if sees else ())})
    merges = learn_merges([*words, *(f"Ġ{word}" for word in words)], end_of_word="")
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
    if sees:
        special += ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokens = [*byte_symbols(), *(left + right for left, right in merges), *special]
    return Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        additional_special_tokens=list(special[1:]),
        chat_template=chat_template,
        model_max_length=131072,
    )


def t5_tokenizer() -> T5Tokenizer:
    """Return a T5Tokenizer of the captions' words and of single printable ASCII characters."""
    from transformers import T5Tokenizer

    pieces = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    pieces += [("▁" + word, -1.0) for word in sorted(WORDS) if len(word) > 1]
    pieces += [("▁", -2.0)]
    pieces += [(character, -4.0) for character in string.printable if character.isprintable()]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def t5_encoder(tokenizer: T5Tokenizer, width: int) -> PreTrainedModel:
    """Return a T5EncoderModel with 2 blocks, whose heads together are not as wide as its states."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=8,
            d_ff=56,
            num_layers=2,
            num_heads=3,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=32,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def _qwen_text_config(tokenizer: Any, width: int, layers: int) -> dict[str, Any]:
    """Return the settings that the configurations of Qwen2.5-VL, Qwen3, Qwen3-VL, Mistral share.

    Args:
        tokenizer: Tokenizer whose tokens the encoder reads.
        width: Width of the hidden states; the query heads together are 32 wide, keys 16.
        layers: Number of blocks.
    """
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 56,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.pad_token_id,
    }


def qwen3(tokenizer: Any, width: int, layers: int, *, head: bool = False) -> PreTrainedModel:
    """Return a Qwen3Model, or a Qwen3ForCausalLM if it has a language model's `head`."""
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    config = Qwen3Config(**_qwen_text_config(tokenizer, width, layers), tie_word_embeddings=True)
    return (Qwen3ForCausalLM if head else Qwen3Model)(config)


def qwen25_vl(tokenizer: Any, width: int, layers: int) -> PreTrainedModel:
    """Return a Qwen2_5_VLForConditionalGeneration, whose vision tower is as small as it can be."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = _qwen_text_config(tokenizer, width, layers)
    del text["head_dim"]  # Qwen2.5's heads share the width of the hidden states
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [1, 2, 2]}
    vision = {**_vision_config(width), "fullatt_block_indexes": [0]}
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
        if f"<|{token}|>" in tokenizer.get_vocab()
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    )


def qwen_processor(tokenizer: Any) -> Any:
    """Return the Qwen2VLProcessor of Qwen-Image-Edit without a processor of videos, which needs
    torchvision; images have 4 to 1,024 tokens."""
    from transformers import Qwen2VLImageProcessorPil

    from hublora.families.qwen_image.processor import ImageTextProcessor

    return ImageTextProcessor(Qwen2VLImageProcessorPil(), tokenizer)


def qwen3_vl(tokenizer: Any, width: int, layers: int) -> PreTrainedModel:
    """Return a Qwen3VLModel, without a head, whose vision tower is as small as it can be."""
    from transformers import Qwen3VLConfig, Qwen3VLModel

    text = _qwen_text_config(tokenizer, width, layers)
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 1, 1]}
    vision = {
        **_vision_config(width),
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    return Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision))


def mistral3(tokenizer: Any, width: int, layers: int) -> PreTrainedModel:
    """Return a Mistral3ForConditionalGeneration, whose vision tower is as small as it can be."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = {**_qwen_text_config(tokenizer, width, layers), "model_type": "mistral"}
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
        "image_size": 28,
        "patch_size": 14,
    }
    return Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    )


def _vision_config(width: int) -> dict[str, Any]:
    return {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": width,
    }


def flux_vae() -> Any:
    """Return the AutoencoderKL of FLUX.1, Z-Image and Chroma: 16 channels, an eighth of a side."""
    return _autoencoder_kl(shift_factor=0.1159, scaling_factor=0.3611)


def sd3_vae() -> Any:
    """Return the AutoencoderKL of SD3, which differs from FLUX.1's in its shift and scale."""
    return _autoencoder_kl(shift_factor=0.0609, scaling_factor=1.5305)


def _autoencoder_kl(**normalization: float) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 8, 8, 12),
        layers_per_block=1,
        latent_channels=16,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **normalization,
    )


def flux2_vae() -> Any:
    """Return the AutoencoderKLFlux2 of FLUX.2, 32 channels at an eighth of a side.

    It keeps means and variances for the 128 channels of 2×2 patches, in a batch norm that never
    runs; here they differ by channel.
    """
    import torch
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8, 8, 12), layers_per_block=1, norm_num_groups=4, sample_size=64
    )
    generator = torch.Generator().manual_seed(1)
    vae.bn.running_mean.copy_(torch.randn(128, generator=generator) / 4)
    vae.bn.running_var.copy_(torch.rand(128, generator=generator) + 0.5)
    return vae


def qwen_vae() -> Any:
    """Return the AutoencoderKLQwenImage of Qwen-Image and Krea 2, with its real mean and std.

    It encodes videos: images have a fifth dimension of 1, and so have their latents.
    """
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(base_dim=6, z_dim=16, num_res_blocks=1)


def scheduler(shift: float, longest: int | None = None, **settings: Any) -> Any:
    """Return a FlowMatchEulerDiscreteScheduler.

    Args:
        shift: Static shift, which a dynamic one replaces.
        longest: Number of image tokens at which a dynamic shift reaches `max_shift` (1.15 unless
            in `settings`); from 256 tokens on it is 0.5. The shift is static by default.
        settings: Further settings of the scheduler.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    if longest is not None:
        settings |= {"use_dynamic_shifting": True, "max_image_seq_len": longest}
    return FlowMatchEulerDiscreteScheduler(shift=shift, **settings)


def filled(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """Return `pipe` with random weights, in evaluation mode and without a progress bar."""
    from torch import nn

    models = [part for _, part in sorted(pipe.components.items()) if isinstance(part, nn.Module)]
    _randomize(*models)
    for model in models:
        model.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _randomize(*modules: nn.Module, seed: int = 0) -> None:
    """Set every parameter of `modules` to random values that neither vanish nor explode.

    Matrices and kernels keep the variance of what they read; biases and the scales of norms are
    off 0 and 1 by a tenth. So no modulation and no output layer is zero, and nothing stays as
    allocated.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for module in modules:
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            read = parameter[0].numel()
            with torch.no_grad():
                if read > 1:
                    parameter.copy_(noise / read**0.5)
                elif name.endswith("bias"):
                    parameter.copy_(0.1 * noise)
                else:  # the scale of a norm: 1 at first, or 0 where the model adds the 1
                    parameter.add_(0.1 * noise)
