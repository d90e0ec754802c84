// The checks of bits in step_checks.h.

#include <cstring>
#include <filesystem>

#include "engine/device/human_units.h"
#include "engine/io/files.h"
#include "train/folders/checkpoint.h"
#include "train/selftest/step_checks.h"

namespace colonnade {
namespace {

/// The bytes of an array, and the size of one of its numbers.
struct Array {
    std::string name;
    size_t width;
    std::vector<char> bytes;
};

std::vector<Array> state_of(const Learner& learner) {
    std::vector<Array> arrays;
    for (const StateArray& array : arrays_of(learner)) {
        const HostCopy numbers = array.read(learner.options().gpu);
        const auto* bytes = static_cast<const char*>(numbers.tensor().data);
        arrays.push_back({array.name, bytes_of(array.dtype), {bytes, bytes + numbers.tensor().bytes()}});
    }
    return arrays;
}

/// How many numbers differ in a bit.
Finding differing(const std::vector<Array>& found, const std::vector<Array>& expected, const std::string& name) {
    Finding finding;
    for (size_t a = 0; a < expected.size(); ++a) {
        const auto& [array, width, bytes] = expected[a];
        for (size_t i = 0; i < bytes.size(); i += width)
            if (std::memcmp(&bytes[i], &found[a].bytes[i], width) != 0) {
                if (finding.found++ == 0) finding.where = fmt::format("{}, {}", array, name);
            }
    }
    return finding;
}

/// An optimizer step over all samples, in packs of a third of them.
void update(const Subject& subject, Learner& learner) {
    const StepRun run{
        .total = subject.total(learner.objective()), .reference = subject.reference, .deterministic = true};
    run_step(learner, subject.in_parts(3), run);
    learner.update(learner.context({.deterministic = true}), {.weight_decay = 0.1}, 1e-3, 1);
    learner.result();
}

std::unique_ptr<Learner> learner_for_updates(const Subject& subject) {
    const std::vector<Batch> batches = subject.in_parts(3);
    return subject.learner(BatchRoom::of(batches));
}

}  // namespace

Finding check_determinism(const Subject& subject) {
    std::vector<std::vector<Array>> states;
    for (int run = 0; run < 2; ++run) {
        const auto learner = learner_for_updates(subject);
        for (int step = 0; step < 2; ++step) update(subject, *learner);
        states.push_back(state_of(*learner));
    }
    return differing(states[1], states[0], subject.name);
}

Finding check_resume(const Subject& subject) {
    std::error_code error;
    const std::filesystem::path temporary = std::filesystem::temp_directory_path(error);
    if (error) return {.skipped = fmt::format("TMPDIR is no folder: {}", error.message())};
    auto learner = learner_for_updates(subject);
    const size_t bytes = state_bytes(learner->config(), learner->options(), learner->options().device());
    const auto space = std::filesystem::space(temporary, error);
    if (!error && space.available < bytes + bytes / 8)
        return {.skipped = fmt::format("a checkpoint has {}, {} has {} free; set TMPDIR to another folder",
                                       human_bytes(bytes), temporary.string(), human_bytes(space.available))};
    const FolderCommit folder(temporary / "colonnade-selftest");  // which nothing commits: it goes away
    const std::string checkpoint = folder.folder() + "/checkpoint-1";
    update(subject, *learner);
    save_checkpoint(
        checkpoint, *learner,
        {.step = 1, .since_log = {}, .data_key = "selftest", .config_yaml = "seed: 42\n", .base_model = subject.name});
    update(subject, *learner);
    const std::vector<Array> unbroken = state_of(*learner);
    learner.reset();
    const auto resumed = learner_for_updates(subject);
    load_checkpoint(checkpoint, *resumed);
    update(subject, *resumed);
    return differing(state_of(*resumed), unbroken, subject.name);
}

}  // namespace colonnade
