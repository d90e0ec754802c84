#include "train/step/gradient_sync.h"

namespace colonnade {
namespace {

/// A head bucket of fewer elements joins the bucket of the last layer: that is the final norm alone, if the head is
/// tied.
constexpr int64_t fewest_elements = 1 << 13;

std::string name_of_layer(const Parameter& p) {
    if (p.in_block()) return fmt::format("layer {}", p.layer);
    return p.role == Role::embedding ? "the embedding" : "the head";
}

}  // namespace

std::vector<GradientBucket> gradient_buckets(const ParameterList& parameters) {
    std::vector<GradientBucket> buckets;
    const Parameter* first = nullptr;  // of the last bucket
    for (const Parameter& p : parameters.all()) {
        if (first && buckets.back().first_layer == p.layer) continue;
        require(!first || p.layer < buckets.back().first_layer, "{} comes after layer {}", p.name, p.layer);
        require(p.begin % 64 == 0, "{} begins a layer at element {}", p.name, p.begin);
        const bool after_head = first && !first->in_block() && p.in_block();
        if (after_head && p.begin - first->begin < fewest_elements) {
            buckets.back().first_layer = p.layer;
            buckets.back().name = name_of_layer(p);
            first = &p;
            continue;
        }
        if (first) buckets.back().elements.end = p.begin;
        buckets.push_back({{p.begin, parameters.size()}, p.layer, p.layer, name_of_layer(p)});
        first = &p;
    }
    return buckets;
}

GradientSync::GradientSync(const ParameterList& parameters, const GradientSyncOptions& options)
    : options_(options),
      buckets_(gradient_buckets(parameters)),
      whole_{{0, parameters.size()}},
      embedding_width_(parameters.find(Role::embedding) ? parameters.find(Role::embedding)->shape[1] : 0),
      shares_(buckets_.size()) {
    if (options_.communicator) {
        options_.ranks = options_.communicator->ranks().size();
        options_.rank = options_.communicator->ranks().rank();
    }
    if (options_.ranks == 1) {
        for (const LayerRange& layer : layer_ranges(parameters)) owned_.push_back({layer.begin, layer.end});
        return;
    }
    for (const GradientBucket& bucket : buckets_)
        owned_.push_back(part_of(bucket.elements, options_.rank, options_.ranks));
}

int64_t GradientSync::state_size() const {
    int64_t elements = 0;
    for (const Range& s : state()) elements += s.size();
    return elements;
}

size_t GradientSync::scratch_bytes(Device device, DType dtype) const {
    if (options_.ranks == 1 && !options_.communicator) return 0;
    int64_t largest = 0;
    for (const GradientBucket& bucket : buckets_) largest = std::max(largest, bucket.elements.size());
    return Communicator::scratch_bytes(device, options_.ranks, largest, dtype, options_.wire);
}

int64_t GradientSync::embedding_width() const {
    return options_.ranks == 1 && !options_.communicator ? 0 : embedding_width_;
}

void GradientSync::start(const Context& ctx, const GradientSyncMemory& memory, int64_t layer) {
    if (!active()) return;
    const PhaseTimer timer = PhaseTimer::on_cpu(ctx, "gradient sync");  // a GPU only enqueues here
    while (sums_.size() < buckets_.size()) {
        const bool of_embedding = embedding_width_ > 0 && sums_.empty();  // goes first
        const GradientBucket& bucket =
            of_embedding ? buckets_.back() : buckets_[sums_.size() - (embedding_width_ > 0 ? 1 : 0)];
        if (of_embedding)
            rows_awaited_ = true;
        else if (bucket.first_layer < layer)
            return;
        const Communicator::Reduce sum{.flat = memory.gradients,
                                       .bucket = bucket.elements,
                                       .wire = options_.wire,
                                       .scratch = memory.scratch,
                                       .what = "gradients of " + bucket.name};
        sums_.push_back(sharded() ? options_.communicator->reduce_scatter(sum)
                                  : options_.communicator->all_reduce(sum));
    }
}

void GradientSync::add_embedding(const Context& ctx, const GradientSyncMemory& memory, const Tensor& dout,
                                 const TokenIndex& index) {
    options_.communicator->wait(sums_.front());
    for (int rank = 0; rank < options_.ranks; ++rank) {
        {
            const PhaseTimer timer(ctx, "gradient sync");
            if (rank == options_.rank) memory.embedding_message.fill(ctx, dout, index);
            options_.communicator->wait(options_.communicator->broadcast(
                {.data = memory.embedding_message.message, .from = rank, .what = "gradients of the embedding"}));
        }
        embedding_backward(ctx, {.dweight = memory.embedding,
                                 .dout = memory.embedding_message.dout,
                                 .index = memory.embedding_message.index});
    }
    rows_awaited_ = false;
}

void GradientSync::finish(const Context& ctx, const GradientSyncMemory& memory) {
    if (!active()) return;
    start(ctx, memory, embedding_layer);
    if (rows_awaited_) add_embedding(ctx, memory);
    const PhaseTimer timer(ctx, "gradient sync");  // on a GPU: how long the compute stream waits
    for (const Communicator::Ticket ticket : sums_) options_.communicator->wait(ticket);
    sums_.clear();
}

void GradientSync::combine(const Context& ctx, const std::vector<Communicator::Scalars>& numbers) const {
    if (!active()) return;
    const PhaseTimer timer(ctx, "gradient sync");
    options_.communicator->all_reduce_scalars(numbers);
}

void GradientSync::share(const Tensor& weights, const Tensor& scratch, size_t bucket) {
    if (!active()) return;
    shares_[bucket] = options_.communicator->all_gather({.flat = weights,
                                                         .bucket = buckets_[bucket].elements,
                                                         .scratch = scratch,
                                                         .what = "weights of " + buckets_[bucket].name});
}

void GradientSync::await_weights(int64_t layer) {
    for (size_t i = 0; i < shares_.size(); ++i) {
        const bool holds = buckets_[i].first_layer <= layer && layer <= buckets_[i].last_layer;
        if (holds && shares_[i]) options_.communicator->wait(*std::exchange(shares_[i], std::nullopt));
    }
}

void GradientSync::await_weights() {
    for (auto& share : shares_)
        if (share) options_.communicator->wait(*std::exchange(share, std::nullopt));
}

void GradientSync::collect(const Tensor& into, const Tensor& own) const {
    std::vector<Range> buckets;
    for (const GradientBucket& bucket : buckets_) buckets.push_back(bucket.elements);
    options_.communicator->gather(into, own, buckets);
}

}  // namespace colonnade
