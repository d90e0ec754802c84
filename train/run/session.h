#pragma once
// Session: what a config comes to before the first step: device, tokenizer, model shape, tokenised samples of both
// splits. `prepare`, `train` and `train --plan` all begin with one.

#include <memory>
#include <string>
#include <vector>

#include "data/build_store.h"
#include "data/encode.h"
#include "engine/ranks/ranks.h"
#include "train/config/config.h"
#include "train/step/learner.h"

namespace colonnade {

struct Session {
    Config config;
    Device device = Device::cpu;
    ModelConfig model;
    std::shared_ptr<const Encoder> encoder;  ///< without tokenizer where all rows are pre-tokenised
    StoreResult train, eval;                 ///< eval holds no samples where there is nothing to evaluate on
    std::string data_key;                    ///< of both splits: part of a checkpoint's identity
    std::vector<std::string> notices;        ///< one line each, for the user
};

/// Throws Exit::config where the machine cannot do what the config asks for, Exit::data for model, tokenizer and data
/// files.
/// With several ranks rank 0 tokenises and the others find what it wrote.
Session open_session(const LoadedConfig& loaded, const Ranks& ranks = one_rank());

/// The encoder of a config; its tokenizer is null where every row is pre-tokenised and none can be read.
std::shared_ptr<const Encoder> make_encoder(const Config& config, int64_t vocab_size);

/// With adapter_name_or_path: rank, alpha and targets become those of that folder; Exit::config where the config says
/// otherwise, or they are no adapters of a model that the stage trains.
void settle_adapter(Config& config);

/// The learner of a run: its stage's objective, its adapters, and the base as the reference of every batch where the config
/// says so. A plan needs neither GPU nor communicator.
LearnerOptions learner_options(const Config& config, const Ranks& ranks = one_rank(), Gpu* gpu = nullptr,
                               Communicator* communicator = nullptr);

/// Threads, device: settles what the config leaves open (a GPU where there is one) and refuses `device: cuda` where that
/// cannot be had, and settings that the device cannot follow. Ranks of one machine share its cores and take a GPU each.
Device settle_machine(Config& config, const Ranks& ranks = one_rank());
/// A token id that pads the rows of a reward model: none that ends an answer, since transformers reads the score of a row
/// at its last token that is no padding. The model's or the tokenizer's pad token where that will do, else the unknown
/// token, else the first id that will.
int64_t reward_pad_token(const ModelConfig& model, const Encoder& encoder);

/// "CPU", or "GPU (NVIDIA H200, 139.8 GiB)".
std::string device_text(const Session& session);

/// Splits `val_size` samples (a share below 1, else a count) off a store: drawn by data_seed, order kept on both sides.
std::pair<TokenStore, TokenStore> split_store(const TokenStore& all, double val_size, uint64_t seed);

}  // namespace colonnade
