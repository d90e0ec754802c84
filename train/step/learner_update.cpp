// The update of a Learner's weights, with optimizer state on the device or in host memory.

#include <algorithm>
#include <bit>

#include "engine/device/planted_bug.h"
#include "train/optimizer/moment_codes.h"
#include "train/step/learner.h"
#include "train/step/muon_parts.h"

namespace colonnade {

constinit const std::array<Learner::Stage::Member, 5> Learner::Stage::members = {
    Member{&Stage::low, &State::low, 1},
    {&Stage::m, &State::m, 1},
    {&Stage::v, &State::v, 1},
    {&Stage::m_units, &State::m_units, moment_block},
    {&Stage::v_units, &State::v_units, moment_block}};

Learner::Stage Learner::Stage::on_device(const State& state, const Range& kept) {
    Stage stage;
    for (const Member& member : members)
        if (const PlacedArray& placed = state.*member.placed; !placed.empty())
            stage.*member.staged = placed.slice(kept.begin / member.elements, kept.end / member.elements);
    return stage;
}

std::array<Learner::Stage, Learner::Stage::count> Learner::Stage::lay_out(Arena& arena, const State& state,
                                                                          int64_t elements) {
    std::array<Stage, count> stages;
    for (Stage& stage : stages)
        for (const Member& member : members) {
            const PlacedArray& placed = state.*member.placed;
            if (placed.on_host.rank == 0) continue;
            const int64_t numbers = std::min(elements / member.elements, placed.on_host.numel());
            stage.*member.staged = arena.tensor("workspace", placed.on_host.dtype, {numbers});
        }
    return stages;
}

/// Brings pieces of hosted optimizer state to the device one after the other and back: while one is updated, the next one
/// arrives and the one before it leaves.
class Learner::HostedUpdate {
  public:
    /// `pieces`: the hosted ones, in the order of the update.
    HostedUpdate(Learner& learner, std::vector<KeptPiece> pieces)
        : learner_(learner),
          pieces_(std::move(pieces)),
          stages_(Stage::lay_out(learner.arena_, learner.state_, learner.options_.hosted_piece)) {
        for (size_t i = 0; i < Stage::count; ++i) fetch(i);
    }
    /// The next piece. Work enqueued from now on finds it on the device.
    Stage arrived(const Context& ctx) {
        const PhaseTimer timer(ctx, "optimizer transfer");
        learner_.transfers_.await(arrivals_[next_ % Stage::count]);
        return of(next_);
    }
    /// The piece has been updated.
    void leave() {
        const Stage& stage = of(next_);
        for (const Stage::Member& member : Stage::members)
            if ((stage.*member.staged).rank > 0)
                departures_[next_ % Stage::count] =
                    learner_.transfers_.to_host(hosted(member, pieces_[next_]), stage.*member.staged);
        fetch(next_ + Stage::count);
        ++next_;
    }
    /// Work enqueued from now on may use the memory again.
    void finish(const Context& ctx) {
        if (pieces_.empty()) return;
        const PhaseTimer timer(ctx, "optimizer transfer");
        for (const TransferTicket& departure : departures_) learner_.transfers_.await(departure);
    }

  private:
    Tensor hosted(const Stage::Member& member, const KeptPiece& piece) const {
        return (learner_.state_.*member.placed)
            .slice(piece.kept.begin / member.elements, piece.kept.end / member.elements);
    }
    /// The piece's place on the device.
    Stage of(size_t piece) const {
        Stage stage = stages_[piece % Stage::count];
        for (const Stage::Member& member : Stage::members)
            if (Tensor& t = stage.*member.staged; t.rank > 0)
                t = t.slice(0, 0, pieces_[piece].kept.size() / member.elements);
        return stage;
    }
    void fetch(size_t piece) {
        if (piece >= pieces_.size()) return;
        const Stage& stage = of(piece);
        const size_t place = piece % Stage::count;
        for (const Stage::Member& member : Stage::members)
            if ((stage.*member.staged).rank > 0)
                arrivals_[place] = learner_.transfers_.to_device(stage.*member.staged, hosted(member, pieces_[piece]),
                                                                 departures_[place]);
    }

    Learner& learner_;
    std::vector<KeptPiece> pieces_;
    std::array<Stage, Stage::count> stages_;
    std::array<TransferTicket, Stage::count> arrivals_{}, departures_{};
    size_t next_ = 0;
};

/// What a fault of memory does to a weight. The bit is one that bf16 has, too.
static void flip_a_bit(Gpu* gpu, const Tensor& weights) {
    const HostCopy weight = HostCopy::of(gpu, weights.slice(0, 0, 1));
    float& value = *weight.tensor().as<float>();
    value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ 1u << 20);
    weight.store();
}

void Learner::update_weights(const Context& ctx, const AdamWSettings& settings, double learning_rate) {
    sync_.await_weights();  // no weight may change while it is still being sent
    if (options_.muon_momentum) return update_with_muon(ctx, settings, learning_rate);
    // The last slice first: that is the order in which the next forward reads them.
    const std::vector<KeptPiece> pieces = kept_pieces();
    std::vector<KeptPiece> hosted;
    for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece)
        if (piece->hosted) hosted.push_back(*piece);
    arena_.release(state_end_);
    HostedUpdate transfer(*this, std::move(hosted));
    auto piece = pieces.rbegin();
    for (size_t slice = sync_.state().size(); slice-- > 0;) {
        for (; piece != pieces.rend() && piece->slice == slice; ++piece) {
            const Stage on_device = piece->hosted ? transfer.arrived(ctx) : Stage::on_device(state_, piece->kept);
            const auto of_all = [&](const Tensor& t) { return t.slice(0, piece->flat.begin, piece->flat.end); };
            adamw(ctx, {.weights = of_all(state_.weights),
                        .low = on_device.low,
                        .m = on_device.m,
                        .v = on_device.v,
                        .m_units = on_device.m_units,
                        .v_units = on_device.v_units,
                        .gradients = of_all(state_.gradients),
                        .clip = state_.norm_and_clip(),
                        .decay_map = state_.decay_map,
                        .parameters = parameters_,
                        .begin = piece->flat.begin,
                        .settings = settings,
                        .learning_rate = learning_rate,
                        .step = updates_,
                        .seed = options_.seed});
            if (piece->hosted) transfer.leave();
        }
        if (sync_.sharded()) sync_.share(state_.weights, state_.comm_scratch, slice);
    }
    transfer.finish(ctx);
    if (planted_bug == PlantedBug::weight_bit && updates_ == 5 && sync_.options().rank == 1) {
        sync_.await_weights();
        flip_a_bit(options_.gpu, state_.weights);
    }
}

void Learner::update_with_muon(const Context& ctx, const AdamWSettings& settings, double learning_rate) {
    const bool halves = !state_.low.empty();
    int64_t at = 0;
    for (const Range& r : ranges_of_adamw(parameters_)) {
        const auto part = [&](const Tensor& t) { return t.slice(0, r.begin, r.end); };
        adamw(ctx, {.weights = part(state_.weights),
                    .low = halves ? state_.low.slice(r.begin, r.end) : Tensor(),
                    .m = state_.m.slice(r.begin, r.end),
                    .v = state_.v.slice(at, at + r.size()),
                    .gradients = part(state_.gradients),
                    .clip = state_.norm_and_clip(),
                    .decay_map = state_.decay_map,
                    .parameters = parameters_,
                    .begin = r.begin,
                    .settings = settings,
                    .learning_rate = learning_rate,
                    .step = updates_,
                    .seed = options_.seed});
        at += r.size();
    }
    const MuonSettings of_muon{.momentum = *options_.muon_momentum, .weight_decay = settings.weight_decay};
    for (const Parameter& p : parameters_.all()) {
        if (!takes_muon(p)) continue;
        const auto part = [&](const Tensor& t) { return view_of(t, p); };
        muon(ctx, {.weights = part(state_.weights),
                   .low = halves ? part(state_.low.on_device) : Tensor(),
                   .m = part(state_.m.on_device),
                   .gradients = part(state_.gradients),
                   .clip = state_.norm_and_clip(),
                   .settings = of_muon,
                   .learning_rate = learning_rate,
                   .workspace = state_.muon});
    }
}

}  // namespace colonnade
