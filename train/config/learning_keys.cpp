#include "train/config/learning_keys.h"

namespace colonnade {

Section freeze_section() {
    using C = Config;
    return {"Frozen layers",
            {
                key("freeze_trainable_layers", &C::freeze_trainable_layers,
                    "With finetuning_type freeze: the last n layers are trained; with a negative number the first n.",
                    from_to(-4096, 4096))
                    .default_is("2; 0 if unfrozen_parameters is given"),
                key("freeze_trainable_modules", &C::freeze_trainable_modules,
                    "What is trained of these layers, such as self_attn, mlp, mlp.down_proj, input_layernorm. q_proj, "
                    "k_proj and v_proj belong together, as do gate_proj and up_proj.")
                    .default_is("all"),
                key("freeze_extra_modules", &C::freeze_extra_modules,
                    "What is trained outside of layers: embed_tokens, norm, lm_head. Stage rm always trains score."),
                key("unfrozen_parameters", &C::unfrozen_parameters,
                    "Instead: regular expressions of the names of trained parameters, such as "
                    "model.layers.2[0-9].mlp. They match from the beginning of a name."),
            }};
}

Section tokens_section() {
    using C = Config;
    return {
        "Added tokens",
        {
            key("special_tokens", &C::special_tokens,
                "Tokens by role, such as {pad_token: <|pad|>, eos_token: <|im_end|>}: bos_token, eos_token, pad_token, "
                "unk_token. They replace those of the tokenizer, which gets the ones that it lacks."),
            key("add_special_tokens", &C::add_special_tokens,
                "Special tokens that the tokenizer gets if it lacks them. Decoding skips them.")
                .also({"new_special_tokens", "additional_special_tokens"}),
            key("add_tokens", &C::add_tokens, "Other tokens that the tokenizer gets if it lacks them.")
                .also({"tokens"}),
            key("pad_vocab_to_multiple_of", &C::pad_vocab_to_multiple_of,
                "The embedding has a multiple of this number of rows.", from_to(1, 1 << 16)),
        }};
}

}  // namespace colonnade
