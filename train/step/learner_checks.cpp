// What a Learner's numbers are checked by: checksums, norms, the first one that is not finite.

#include <algorithm>
#include <cmath>

#include "engine/device/checksum.h"
#include "train/step/learner.h"

namespace colonnade {

/// The first parameter with a value that is not finite in a flat array; empty if there is none. One parameter at a time
/// is copied to host memory.
static std::string first_not_finite_in(Gpu* gpu, const PlacedArray& flat, const ParameterList& parameters) {
    for (const Parameter& p : parameters.all()) {
        const HostCopy host = HostCopy::of(gpu, flat.slice(p.begin, p.end()));
        bool finite = true;
        dispatch_float(host.tensor().dtype, [&]<typename T>() {
            const T* values = host.tensor().as<T>();
            finite = std::all_of(values, values + p.size(), [](T x) { return std::isfinite(x); });
        });
        if (!finite) return p.name;
    }
    return "";
}

Fingerprint Learner::fingerprint(const Context& ctx, const Batch& batch, double total) {
    begin_step();
    accumulate(ctx, batch, {.total = total});
    await_gradients();
    return {.loss = loss().nll, .gradients = checksum_of(state_.gradients)};
}

uint64_t Learner::checksum_of(const PlacedArray& array) const {
    if (options_.gpu && array.has_hosted()) options_.gpu->synchronize();  // numbers may be on their way to host memory
    uint64_t sum = 0;
    for (const PlacedArray::Part& part : array.parts()) {
        const int64_t bytes = part.numbers.begin * static_cast<int64_t>(bytes_of(part.values.dtype));
        sum += checksum(part.hosted ? Context() : context(), part.values, state_.checksum, bytes / 4);
    }
    return sum;
}

double Learner::gradient_norm(const Context& ctx) {
    add_squares(ctx);
    return std::sqrt(read(state_.norm_and_clip())[0]);
}

bool Learner::is_finite(const Context& ctx) {
    return std::isfinite(loss().nll) && std::isfinite(gradient_norm(ctx));
}

std::string Learner::first_not_finite(const Context& ctx) {
    if (is_finite(ctx)) return "";
    if (!std::isfinite(loss().nll)) return "the loss";
    await_gradients();
    return "the gradient of " + first_not_finite_in(options_.gpu, state_.gradients, parameters_);
}

std::string Learner::first_bad_weight() const {
    if (options_.gpu && !hosted_blocks_.empty()) options_.gpu->synchronize();
    const std::string frozen = first_not_finite_in(options_.gpu, state_.base, base_parameters_);
    return !frozen.empty() ? frozen : first_not_finite_in(options_.gpu, state_.weights, parameters_);
}

uint64_t Learner::weights_checksum() {
    sync_.await_weights();
    return checksum_of(state_.weights);
}

}  // namespace colonnade
