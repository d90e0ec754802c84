// The update of a Learner's weights, with optimizer state on the device or in host memory.

#include <algorithm>
#include <bit>

#include "engine/device/planted_bug.h"
#include "train/optimizer/moment_codes.h"
#include "train/step/learner.h"
#include "train/step/muon_parts.h"

namespace colonnade {

constinit const std::array<Learner::Stage::Member, 7> Learner::Stage::members = {
    Member{.staged = &Stage::gradients, .placed = &State::gradients, .range = &KeptPiece::flat, .is_updated = false},
    {.staged = &Stage::weights, .placed = &State::weights, .range = &KeptPiece::flat},
    {.staged = &Stage::low, .placed = &State::low, .range = &KeptPiece::kept},
    {.staged = &Stage::m, .placed = &State::m, .range = &KeptPiece::kept},
    {.staged = &Stage::v, .placed = &State::v, .range = &KeptPiece::kept},
    {.staged = &Stage::m_units, .placed = &State::m_units, .range = &KeptPiece::kept, .elements = moment_block},
    {.staged = &Stage::v_units, .placed = &State::v_units, .range = &KeptPiece::kept, .elements = moment_block}};

Range Learner::Stage::Member::numbers(const KeptPiece& piece) const {
    const Range& of = piece.*range;
    return {of.begin / elements, of.end / elements};
}

bool Learner::Stage::Member::is_hosted(const State& state, const KeptPiece& piece) const {
    const PlacedArray& array = state.*placed;
    return !array.empty() && array.part_of(numbers(piece).begin).hosted;
}

Tensor Learner::Stage::Member::in_place(const State& state, const KeptPiece& piece) const {
    const PlacedArray& array = state.*placed;
    const Range of = numbers(piece);
    return array.empty() ? Tensor() : array.slice(of.begin, of.end);
}

std::array<Learner::Stage, Learner::Stage::count> Learner::Stage::lay_out(Arena& arena, const State& state,
                                                                          int64_t elements) {
    std::array<Stage, count> stages;
    for (Stage& stage : stages)
        for (const Member& member : members) {
            const PlacedArray& placed = state.*member.placed;
            if (!placed.has_hosted()) continue;
            const int64_t numbers = std::min(elements / member.elements, placed.largest_hosted());
            stage.*member.staged = arena.tensor("workspace", placed.parts().front().values.dtype, {numbers});
        }
    return stages;
}

/// Brings hosted arrays to the device a piece at a time, and what an update changes of them back: while one piece is
/// updated, the next one arrives and the one before it leaves.
class Learner::HostedUpdate {
  public:
    /// `pieces`: in the order of the update.
    HostedUpdate(Learner& learner, std::vector<KeptPiece> pieces)
        : learner_(learner),
          pieces_(std::move(pieces)),
          stages_(Stage::lay_out(learner.arena_, learner.state_, learner.options_.hosted_piece)) {
        departures_.fill(learner.state_.blocks.gradients_sent());
        for (size_t i = 0; i < Stage::count; ++i) fetch(i);
    }
    /// The next piece. Work enqueued from now on finds it on the device.
    Stage arrived(const Context& ctx) {
        if (!pieces_[next_].hosted) return of(next_);
        const PhaseTimer timer(ctx, "optimizer transfer");
        learner_.transfers_.await(arrivals_[next_ % Stage::count]);
        return of(next_);
    }
    /// The piece has been updated.
    void leave() {
        const Stage& stage = of(next_);
        for (const Stage::Member& member : Stage::members)
            if (member.is_updated && member.is_hosted(learner_.state_, pieces_[next_]))
                last_ = departures_[next_ % Stage::count] =
                    learner_.transfers_.to_host(member.in_place(learner_.state_, pieces_[next_]), stage.*member.staged);
        fetch(next_ + Stage::count);
        ++next_;
    }
    /// Work enqueued from now on may use the memory again.
    void finish(const Context& ctx) {
        if (std::ranges::none_of(pieces_, &KeptPiece::hosted)) return;
        const PhaseTimer timer(ctx, "optimizer transfer");
        for (const TransferTicket& departure : departures_) learner_.transfers_.await(departure);
        learner_.state_.blocks.weights_changed(last_);
    }

  private:
    /// The piece's place on the device.
    Stage of(size_t piece) const {
        Stage stage;
        for (const Stage::Member& member : Stage::members) {
            const Tensor& staged = stages_[piece % Stage::count].*member.staged;
            stage.*member.staged = member.is_hosted(learner_.state_, pieces_[piece])
                                       ? staged.slice(0, 0, member.numbers(pieces_[piece]).size())
                                       : member.in_place(learner_.state_, pieces_[piece]);
        }
        return stage;
    }
    void fetch(size_t piece) {
        if (piece >= pieces_.size()) return;
        const Stage& stage = of(piece);
        const size_t place = piece % Stage::count;
        for (const Stage::Member& member : Stage::members)
            if (member.is_hosted(learner_.state_, pieces_[piece]))
                arrivals_[place] = learner_.transfers_.to_device(
                    stage.*member.staged, member.in_place(learner_.state_, pieces_[piece]), departures_[place]);
    }

    Learner& learner_;
    std::vector<KeptPiece> pieces_;
    std::array<Stage, Stage::count> stages_;
    std::array<TransferTicket, Stage::count> arrivals_{}, departures_{};
    TransferTicket last_{};
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
    std::vector<KeptPiece> pieces = kept_pieces();
    std::ranges::reverse(pieces);
    arena_.release(state_end_);
    HostedUpdate update(*this, pieces);
    auto piece = pieces.begin();
    for (size_t slice = sync_.state().size(); slice-- > 0;) {
        for (; piece != pieces.end() && piece->slice == slice; ++piece) {
            const Stage stage = update.arrived(ctx);
            adamw(ctx, {.weights = stage.weights,
                        .low = stage.low,
                        .m = stage.m,
                        .v = stage.v,
                        .m_units = stage.m_units,
                        .v_units = stage.v_units,
                        .gradients = stage.gradients,
                        .clip = state_.norm_and_clip(),
                        .decay_map = state_.decay_map,
                        .parameters = parameters_,
                        .begin = piece->flat.begin,
                        .settings = settings,
                        .learning_rate = learning_rate,
                        .step = updates_,
                        .seed = options_.seed});
            update.leave();
        }
        if (sync_.sharded()) sync_.share(state_.weights.whole(), state_.comm_scratch, slice);
    }
    update.finish(ctx);
    if (planted_bug == PlantedBug::weight_bit && updates_ == 5 && sync_.options().rank == 1) {
        sync_.await_weights();
        flip_a_bit(options_.gpu, state_.weights.whole());
    }
}

void Learner::update_with_muon(const Context& ctx, const AdamWSettings& settings, double learning_rate) {
    const bool halves = !state_.low.empty();
    int64_t at = 0;
    for (const Range& r : ranges_of_adamw(parameters_)) {
        adamw(ctx, {.weights = state_.weights.slice(r.begin, r.end),
                    .low = halves ? state_.low.slice(r.begin, r.end) : Tensor(),
                    .m = state_.m.slice(r.begin, r.end),
                    .v = state_.v.slice(at, at + r.size()),
                    .gradients = state_.gradients.slice(r.begin, r.end),
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
        const auto part = [&](const PlacedArray& array) { return view_of(array.whole(), p); };
        muon(ctx, {.weights = part(state_.weights),
                   .low = halves ? part(state_.low) : Tensor(),
                   .m = part(state_.m),
                   .gradients = part(state_.gradients),
                   .clip = state_.norm_and_clip(),
                   .settings = of_muon,
                   .learning_rate = learning_rate,
                   .workspace = state_.muon});
    }
}

}  // namespace colonnade
