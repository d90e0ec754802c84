#include "train/run/step_time.h"

#include <cmath>

#include "train/optimizer/moment_codes.h"

namespace colonnade {
namespace {

// Shares of a GPU's rates that training reaches: train/run/step_time.h.
constexpr double product_share = 0.62, attention_share = 0.60, attention_backward_share = 0.52, memory_share = 0.8;
/// How much faster products in e4m3 are.
constexpr double fp8_gain = 1.6;
/// Floating-point operations of attention's backward, which computes the scores again, over those of its forward.
constexpr double attention_backward = 2.5;

/// A step in parts that depend on different settings.
class Prediction {
  public:
    Prediction(const ModelConfig& model, const LearnerOptions& options, int64_t micro_steps, const StepAmounts& amounts,
               const GpuRates& rates)
        : m_(model),
          o_(options),
          micro_steps_(static_cast<double>(micro_steps)),
          amounts_(amounts),
          rates_(rates),
          trained_(trained_parameters(model, options)),
          layers_(static_cast<double>(model.num_hidden_layers)),
          reach_((layers_ - static_cast<double>(std::max<int64_t>(lowest_layer(trained_), 0))) / layers_) {}

    StepTime time() const {
        StepTime time;
        time.recomputed = recomputed();
        time.compute = products() + attention() + time.recomputed + memory_seconds(traffic());
        time.optimizer_transfer = hosted_bytes() / rates_.bus;
        time.weight_transfer = weight_transfer();
        time.activation_transfer = activation_transfer();
        return time;
    }

  private:
    double product_seconds(double flops) const { return flops / (product_share * rates_.bf16); }
    /// Of blocks' outputs, or of the gradients of their inputs.
    double block_seconds(double flops) const { return product_seconds(flops) / (o_.fp8 ? fp8_gain : 1); }
    double memory_seconds(double bytes) const { return bytes / (memory_share * rates_.memory); }
    double forward_attention_seconds(double pairs) const {
        return 4 * static_cast<double>(m_.query_width()) * pairs / (attention_share * rates_.bf16);
    }
    double hidden() const { return static_cast<double>(m_.hidden_size); }
    double ffn() const { return static_cast<double>(m_.intermediate_size); }
    double head_weights() const { return m_.score_head ? 0 : hidden() * static_cast<double>(m_.vocab_size); }
    /// Weights of a block's matrices.
    double block_weights() const {
        return hidden() * (static_cast<double>(m_.qkv_width() + m_.query_width()) + 3 * ffn());
    }
    bool trains_head() const { return o_.lora ? o_.lora->head : !o_.freeze; }

    double forwards() const { return o_.reference == Reference::base ? 2 : 1; }
    double products() const {
        const StepWork work{.lora = o_.lora ? &*o_.lora : nullptr,
                            .reference_forward = o_.reference == Reference::base};
        double flops = useful_flops(m_, amounts_, work).products;
        if (o_.freeze) {  // of the 6 operations of a weight 2 are for its gradient, 2 for that of its input
            const double all = block_weights() * layers_ + head_weights();
            flops *= (2 + 2 * reach_ + 2 * std::min(static_cast<double>(trained_.count()) / all, 1.0)) / 6;
        }
        if (o_.objective->answers() != Answers::none)
            flops += 2 * head_weights() * amounts_.targets;  // the logits again
        const double of_blocks = 2 * (forwards() + reach_) * block_weights() * layers_ * amounts_.tokens;
        return product_seconds(flops - of_blocks) + block_seconds(of_blocks);
    }

    double attention() const {
        const double forward = forward_attention_seconds(amounts_.pairs);
        return forward * (forwards() + reach_ * attention_backward * attention_share / attention_backward_share);
    }

    /// Seconds of the second forward pass, or of the ops that bandwidth bounds.
    double recomputed() const {
        if (o_.recompute == Recompute::none) return 0;
        const double tokens = amounts_.tokens * layers_ * reach_;
        if (o_.recompute == Recompute::selective)  // read a sum, write what is normed; read gate and up, write SwiGLU
            return memory_seconds(2 * (4 * hidden() + 3 * ffn()) * tokens);
        // All but the down projection.
        return block_seconds(2 * (block_weights() - hidden() * ffn()) * tokens) +
               forward_attention_seconds(amounts_.pairs * reach_) + memory_seconds(adapter_traffic_again() * tokens);
    }

    /// Bytes of the GPU's memory in a step.
    double traffic() const {
        const auto trained = static_cast<double>(trained_.count());
        const double gradients = 8;  // read and written, in fp32
        double bytes = gradients * trained * (micro_steps_ - 1);
        const double chunks = std::ceil(amounts_.targets / micro_steps_ / static_cast<double>(o_.head_chunk));
        bytes += (trains_head() ? gradients : 2) * head_weights() * micro_steps_ * std::max(chunks - 1, 0.0);
        bytes += adapter_traffic() * amounts_.tokens * layers_;
        const double passes = o_.recompute == Recompute::block ? 3 : 2;
        if (o_.fp8) bytes += rounding_traffic(passes);
        if (o_.base_code && !takes_codes()) {  // read in 4 or 8 bits, written and read in 16
            bytes += (o_.base_code == WeightCode::nf4 ? 4.5 : 5) * block_weights() * layers_ * micro_steps_ * passes;
        }
        // The norm and the update read the gradient; the update reads and writes weight, lower half and moments.
        return bytes + trained * 4 + kept() * (4 + 2 * (2 + state_bytes_of_a_parameter()));
    }

    bool takes_codes() const { return o_.fp8 && o_.base_code == WeightCode::fp8; }
    /// Bytes of operands that are read in bf16, or as codes, and written as codes; and of SwiGLU as an op of its own.
    double rounding_traffic(double passes) const {
        const auto query = static_cast<double>(m_.query_width()), qkv = static_cast<double>(m_.qkv_width());
        const double inputs = 2 * hidden() + query, gradients = 2 * hidden() + qkv + 2 * ffn();
        const double of_token =
            3 * (inputs * (passes - 1) + ffn() + gradients) + (adapter_traffic() > 0 ? 0 : 16 * ffn());
        const double of_weight = takes_codes() ? 2 : 3;
        return of_token * amounts_.tokens * layers_ + of_weight * passes * block_weights() * layers_ * micro_steps_;
    }

    /// Bytes of one token in one block that adapters read, and add to; SwiGLU is an op of its own beside them.
    double adapter_traffic() const { return adapter_bytes(8, 8, 16, true); }
    double adapter_traffic_again() const { return adapter_bytes(2, 4, 6, false); }
    double adapter_bytes(double of_input, double of_output, double of_swiglu, bool with_down) const {
        if (!o_.lora) return 0;
        double bytes = 0;
        for (const Projection p : all_projections) {
            if (o_.lora->width(p) == 0 || (p == Projection::down && !with_down)) continue;
            const double in = p == Projection::o      ? static_cast<double>(m_.query_width())
                              : p == Projection::down ? ffn()
                                                      : hidden();
            const double out = p == Projection::qkv       ? static_cast<double>(m_.qkv_width())
                               : p == Projection::gate_up ? 2 * ffn()
                                                          : hidden();
            bytes += of_input * in + of_output * out;
        }
        return bytes + (o_.lora->width(Projection::gate_up) > 0 ? of_swiglu * ffn() : 0);
    }

    /// Parameters whose state this rank keeps.
    double kept() const {
        const double ranks = o_.sync.zero_stage > 0 ? o_.sync.ranks : 1;
        return static_cast<double>(trained_.count()) / ranks;
    }
    /// Of the optimizer: the half below a weight, and moments.
    double state_bytes_of_a_parameter() const {
        const DType moments = o_.moments_on(Device::cuda);
        const double units = moments == DType::u8 ? 2.0 * sizeof(float) / static_cast<double>(moment_block) : 0;
        return 2 + 2 * static_cast<double>(bytes_of(moments)) + units;
    }
    double hosted_bytes() const { return o_.offloaded_optimizer * kept() * state_bytes_of_a_parameter(); }

    /// Of a block and a micro-step.
    double forward_seconds() const { return block_seconds(forward_flops()) + forward_attention(); }
    double backward_seconds() const {
        // Gradients of weights, and what attention takes longer than forward.
        const double more = o_.lora ? 0 : product_seconds(forward_flops()) + forward_attention();
        return forward_seconds() * (o_.recompute == Recompute::block ? 2 : 1) + more;
    }
    double forward_flops() const { return 2 * block_weights() * amounts_.tokens / micro_steps_; }
    double forward_attention() const { return forward_attention_seconds(amounts_.pairs / layers_ / micro_steps_); }

    double bytes_of_a_weight() const { return !o_.base_code ? 2 : o_.base_code == WeightCode::nf4 ? 0.52 : 1; }
    /// Hosted blocks are spread over the model, so that others compute while one arrives (train/step/hosted_blocks.h).
    double weight_transfer() const {
        const double hosted = std::min(static_cast<double>(o_.offloaded_weights), layers_);
        if (hosted == 0) return 0;
        const double weights = bytes_of_a_weight() * block_weights(),
                     gradients = 4 * (o_.lora     ? 0
                                      : o_.freeze ? static_cast<double>(trained_.count()) / layers_
                                                  : block_weights());
        const auto exposed = [&](double bytes, double compute) {
            return hosted * std::max(bytes / rates_.bus - compute * layers_ / hosted, 0.0);
        };
        // The first micro-step adds to nothing: gradients only leave, while weights arrive.
        const double passes = micro_steps_ * exposed(weights, forward_seconds()) +
                              exposed(std::max(weights, gradients), backward_seconds()) +
                              (micro_steps_ - 1) * exposed(weights + gradients, backward_seconds());
        return passes + hosted * (gradients > 0 ? weights + gradients : 0) / rates_.bus;  // and the update
    }

    double activation_transfer() const {
        const double copy = 2 * hidden() * amounts_.tokens / micro_steps_ / rates_.bus;
        const ActivationLayout layout{
            .training = true, .lowest = lowest_layer(trained_), .offloaded = o_.offloaded_activations};
        return static_cast<double>(layout.offloaded_of(m_.num_hidden_layers)) * micro_steps_ *
               (std::max(copy - forward_seconds(), 0.0) + std::max(copy - backward_seconds(), 0.0));
    }

    const ModelConfig& m_;
    const LearnerOptions& o_;
    const double micro_steps_;
    const StepAmounts& amounts_;
    const GpuRates& rates_;
    const ParameterList trained_;
    const double layers_, reach_;  ///< reach: share of the blocks that backward goes through
};

}  // namespace

StepTime predict_step(const ModelConfig& model, const LearnerOptions& options, int64_t micro_steps,
                      const StepAmounts& amounts, const GpuRates& rates) {
    return Prediction(model, options, micro_steps, amounts, rates).time();
}

}  // namespace colonnade
