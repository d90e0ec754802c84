// The start of a run: its folder, its memory, the checkpoint that it continues from.

#include <algorithm>
#include <filesystem>

#include "engine/io/files.h"
#include "train/folders/adapter_folder.h"
#include "train/folders/export.h"
#include "train/folders/initial_weights.h"
#include "train/run/describe_run.h"
#include "train/run/learner_options.h"
#include "train/run/machine.h"
#include "train/run/memory_advice.h"
#include "train/run/session_fit.h"
#include "train/run/shared_folder.h"
#include "train/run/trainer.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// A checkpoint's reference key, for messages.
std::string reference_text(const std::string& key) {
    return key.empty() ? "none" : fmt::format("key {:.16}", key);
}

}  // namespace

void Trainer::open_output_dir() {
    const std::string& dir = config_.output_dir;
    make_folders(dir);
    lock_ = std::make_unique<FolderLock>(dir);
    if (const std::string trouble = remove_leftovers(dir); !trouble.empty())
        note(fmt::format("warning: what a killed run left behind stays: {}", trouble));
    // A run continues in place only from the newest checkpoint; later ones belong to another run.
    const std::vector<int64_t> old = checkpoint_steps(dir);
    const std::string& from = config_.resume_from_checkpoint;
    std::error_code error;
    const bool resumes =
        !old.empty() && (from == "auto" || fs::equivalent(from, checkpoint_folder(dir, old.back()), error));
    const bool used = !old.empty() || path_exists(dir + "/config.json") || is_adapter_folder(dir);
    const std::string state = state_of_run(dir);
    if (used && !resumes && !config_.overwrite_output_dir)
        fail(Exit::config,
             "output_dir {} already contains a {}: {}set overwrite_output_dir: true to discard it, or choose another "
             "folder{}",
             dir, old.empty() ? "model" : "run", old.empty() ? "" : "set resume_from_checkpoint: auto to continue it, ",
             state.empty() ? "" : fmt::format(" (its last run: {})", state));
    record_ = std::make_unique<RunRecord>(dir, config_.overwrite_output_dir);
    if (resumes && !state.empty()) say("the last run in {}: {}\n", dir, state);
}

void Trainer::resume(const WholeCheckpoint& checkpoint) {
    const std::string& folder = checkpoint.folder;
    state_ = load_checkpoint(checkpoint, *learner_);
    if (state_.data_key != session_.data_key)
        fail(Exit::config,
             "{}: made from other data or with other data settings (key {:.16}, now {:.16}); train in another "
             "output_dir",
             folder, state_.data_key, session_.data_key);
    if (state_.reference_key != references_.key)
        fail(Exit::config, "{}: made with another reference ({}, now {}); train in another output_dir", folder,
             reference_text(state_.reference_key), reference_text(references_.key));
    if (state_.step > schedule_.total_steps())
        fail(Exit::config, "{}: is at step {}, but the run ends at step {}", folder, state_.step,
             schedule_.total_steps());
    changes_ = note_changes_since(folder);
    resume_best(folder);
    last_save_step_ = enqueued_ = state_.step;
    last_checkpoint_ = folder;
    window_.loss = state_.since_log;
    spikes_ = SpikeWatch({config_.loss_spike_z, config_.loss_spike_window}, state_.recent);
    say("resumed from {} at step {} of {}\n", folder, state_.step, schedule_.total_steps());
}

std::vector<std::string> Trainer::note_changes_since(const std::string& folder) const {
    const Config then = parse_config(state_.config_yaml, folder + "/config.yaml").config;
    const int64_t packs = schedule_.settings().layout.packs_per_step();
    const bool same_packs = state_.packs_per_step == packs, same_ranks = state_.ranks == ranks_.size();
    const std::vector<std::string> changes = config_changes(then, config_);
    for (const std::string& change : changes) {
        // With the same packs, how each rank divides its own changes no sample: the note about the ranks says it.
        const bool divides =
            change.starts_with("gradient_accumulation_steps:") || change.starts_with("per_device_train_batch_size:");
        if (divides && same_packs && !same_ranks) continue;
        say("note: the config changed since this checkpoint, so results will differ from an uninterrupted run: {}\n",
            change);
    }
    if (state_.packs_per_step > 0 && !same_packs)
        say("note: the number of packs per step changed from {} to {} since this checkpoint: some samples of this "
            "epoch come twice or not at all\n",
            state_.packs_per_step, packs);
    else if (!same_ranks)
        say("note: {} ranks made the checkpoint, now there are {}: the samples and their order are the same, sums "
            "round differently\n",
            state_.ranks, ranks_.size());
    const std::string other = differences(state_.made_by, facts_of_machine(session_.device, config_.device_index));
    if (!other.empty())
        say("note: the last bits may differ from an uninterrupted run, because since this checkpoint changed: {}\n",
            other);
    return changes;
}

void Trainer::start() {
    std::string folder = config_.resume_from_checkpoint;
    ranks_.together("start", [&] {
        if (session_.device == Device::cuda) gpu_ = std::make_unique<Gpu>(static_cast<int>(config_.device_index));
    });
    if (ranks_.several()) communicator_ = Communicator::join(ranks_, gpu_.get(), config_.deterministic);
    if (saves_.sharded) require_shared_folder(ranks_, config_.output_dir);
    ranks_.together("start", [&] {
        learner_ = make_learner();
        ctx_ = learner_->context({.deterministic = config_.deterministic});
        if (config_.eval_table_size > 0 && ranks_.first())
            answers_ = std::make_unique<SampleAnswers>(session_, *learner_);
    });
    prepare_saves();
    std::optional<WholeCheckpoint> from;  // verified by this rank
    if (folder == "auto") {
        ranks_.together("checkpoint", [&] {
            if (!ranks_.first()) return;
            NewestCheckpoint newest = newest_checkpoint(config_.output_dir);
            for (const std::string& notice : newest.notices) note(notice);
            from = std::move(newest.whole);
        });
        folder = ranks_.broadcast("checkpoint", from ? from->folder : "");
    }
    ranks_.together("weights", [&] {
        if (folder.empty() || computes_references(session_, *learner_)) load_or_initialize(config_, *learner_);
        references_ = make_references(session_, *learner_, ctx_, ranks_);
        for (const std::string& notice : references_.notices) say("{}\n", notice);
    });
    ranks_.together("checkpoint", [&] {
        if (!folder.empty()) {
            if (learner_->has_base()) load_base(config_.model_name_or_path, *learner_);
            return resume(from ? *from : check_checkpoint(folder));
        }
        if (!ranks_.first()) return;
        // Removes the checkpoints that overwrite_output_dir discards: not before weights and reference are loaded.
        for (const int64_t step : checkpoint_steps(config_.output_dir))
            remove_folder(checkpoint_folder(config_.output_dir, step));
    });
    check_best();
    state_.data_key = session_.data_key;
    state_.reference_key = references_.key;
    state_.config_yaml = resolved_yaml(config_);
    state_.ranks = ranks_.size();
    state_.made_by = facts_of_machine(session_.device, config_.device_index);
    state_.packs_per_step = schedule_.settings().layout.packs_per_step();
    state_.base_model = config_.name_of(config_.model_name_or_path);
    ranks_.together("logs", [&] {
        if (!ranks_.first()) return;
        record_->begin({.program = session_.program,
                        .machine = state_.made_by,
                        .ranks = ranks_.size(),
                        .resumed_step = state_.step,
                        .total_steps = schedule_.total_steps(),
                        .changes = changes_});
        write_file_atomically(config_.output_dir + "/config.yaml", state_.config_yaml);
        plan_ = plan();
        log_ = std::make_unique<MetricsLog>(config_.output_dir, log_files(config_),
                                            folder.empty() ? std::nullopt : std::optional(state_.step),
                                            describe_run(config_, plan_));
    });
    if (config_.param_checksum_steps > 0) check_weights();
}

std::unique_ptr<Learner> Trainer::make_learner() const {
    if (config_.gpu_memory.bytes > 0 || config_.host_memory.bytes > 0)
        require_memory(config_, fit_subject(session_, ranks_), ranks_);
    try {
        LearnerOptions options = learner_options(config_, ranks_, gpu_.get(), communicator_.get());
        options.density = density_of(session_);
        return std::make_unique<Learner>(session_.model, options);
    } catch (const Error& e) {
        if (e.exit() != Exit::memory) throw;
        MemoryRoom room = memory_room(config_, session_.device, ranks_, SessionUse::plan).value_or(MemoryRoom());
        room.device = std::min(room.device, gpu_ ? available_gpu_memory() : available_memory());
        const MemoryAdvice advice = advise_on_memory(config_, fit_subject(session_, ranks_), room);
        if (advice.fits && advice.settings.empty()) throw;  // not the device's memory: the error says what to do
        fail(Exit::memory, "{}; {}", e.what(), text_of(advice));
    }
}

FurtherFiles Trainer::further_files() const {
    if (!config_.export_checkpoints) return {};
    return hugging_face_files(config_, session_.encoder, *learner_);
}

void Trainer::prepare_saves() {
    // If one of the ranks that save waits for its saves, all do: their machines may differ in memory.
    const bool writes = ranks_.first() || saves_.sharded;
    if (ranks_.max("saves", writes && !saves_.background) > 0) return;
    std::string failure;
    ranks_.together("saves", [&] {
        try {
            if (writes) saver_ = std::make_unique<BackgroundSave>(*learner_, writers(), further_files());
        } catch (const Error& e) {
            if (e.exit() != Exit::memory || config_.async_save == Tristate::on) throw;
            failure = e.what();
        }
    });
    const std::vector<std::string> all = ranks_.gather("saves", failure);
    const auto failed = std::ranges::find_if(all, [](const std::string& text) { return !text.empty(); });
    if (failed == all.end()) return;
    saver_.reset();
    note(fmt::format("note: the run waits until each checkpoint is written: {}", *failed));
}

}  // namespace colonnade
