#include "train/selftest/subject.h"

#include <algorithm>

namespace colonnade {

BatchRoom BatchRoom::of(std::span<const Batch> batches) {
    BatchRoom room;
    for (const Batch& batch : batches)
        room.packs = std::max(room.packs, batch.packs), room.length = std::max(room.length, batch.length);
    return room;
}

std::vector<Batch> Subject::separate() const {
    std::vector<Batch> batches;
    for (const Sample& sample : samples) {
        const Sample apart = unshared(sample);
        batches.push_back(make_batch({{&apart}}));
    }
    return batches;
}

std::vector<std::vector<const Sample*>> Subject::groups(size_t count) const {
    count = std::clamp<size_t>(count, 1, samples.size());
    std::vector<std::vector<const Sample*>> groups(count);
    for (size_t i = 0; i < samples.size(); ++i) groups[i * count / samples.size()].push_back(&samples[i]);
    return groups;
}

Batch Subject::packed(size_t packs) const {
    return make_batch(groups(packs), {.sharing = sharing});
}

std::vector<Batch> Subject::in_parts(size_t packs) const {
    std::vector<Batch> batches;
    for (const auto& group : groups(packs)) batches.push_back(make_batch({group}, {.sharing = sharing}));
    return batches;
}

double Subject::total(const Objective& objective) const {
    double total = 0;
    for (const Batch& batch : separate()) total += objective.total(batch);
    return total;
}

}  // namespace colonnade
