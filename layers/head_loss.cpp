#include "layers/head_loss.h"

#include <cmath>
#include <limits>

#include "engine/device/gemm.h"
#include "engine/device/vector_math.h"
#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

struct RowLoss {
    double nll, sum;  ///< sum of exp(logits - max)
    double entropy;   ///< only with Entropy::computed
    bool correct;
};

enum class Entropy { left_out, computed };

/// Replaces `logits` by exp(logits - max).
template <Entropy entropy, typename T>
RowLoss row_loss(T* logits, int64_t vocab, int32_t target) {
    T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < vocab; ++j) largest = logits[j] > largest ? logits[j] : largest;
    const T at_target = logits[target];
    double sum = 0, below = 0;  // below: sum of exp(x) x, x = logits - max
#pragma omp simd reduction(+ : sum, below)
    for (int64_t j = 0; j < vocab; ++j) {
        const T x = logits[j] - largest;
        logits[j] = vexp(x);
        sum += logits[j];
        if constexpr (entropy == Entropy::computed) below += logits[j] > 0 ? logits[j] * x : 0;
    }
    return {std::log(sum) + largest - at_target, sum, std::log(sum) - below / sum, at_target == largest};
}

template <typename T>
RowLoss row_loss(T* logits, int64_t vocab, int32_t target, Entropy entropy) {
    return entropy == Entropy::computed ? row_loss<Entropy::computed>(logits, vocab, target)
                                        : row_loss<Entropy::left_out>(logits, vocab, target);
}

/// Replaces exp(logits - max) by scale * softmax.
template <typename T>
void scaled_softmax(T* logits, int64_t vocab, double sum, double scale) {
    // Multiplying by 0 would leave NaN if a logit is not finite.
    if (scale == 0) {
        std::fill_n(logits, vocab, T{0});
        return;
    }
    const T factor = static_cast<T>(scale / sum);
#pragma omp simd
    for (int64_t j = 0; j < vocab; ++j) logits[j] *= factor;
}

/// A teacher's list for one row, and the student's logits of its tokens less that of the target.
class TeacherRow {
  public:
    template <typename T>
    TeacherRow(const TeacherTokens& given, int64_t row, const T* logits, int32_t target)
        : beta_(given.beta),
          weight_(given.weight),
          target_weight_(given.target_weight),
          target_(target),
          ids_(given.ids.as<int32_t>() + row * given.ids.size(1)) {
        const float* const log_probs = given.log_probs.as<float>() + row * given.ids.size(1);
        for (int64_t j = 0; j < given.ids.size(1) && ids_[j] >= 0; ++j) {
            teacher_.push_back(log_probs[j]);
            student_.push_back(static_cast<double>(logits[ids_[j]]) - static_cast<double>(logits[target]));
        }
        slopes_.resize(teacher_.size());
    }
    /// The divergence. Called once.
    double loss(double nll) {
        for (double& logit : student_) logit -= nll;
        if (student_.empty()) return 0;
        const DistillationLoss loss =
            distillation_loss(beta_, {teacher_.data(), student_.data(), std::ssize(student_)}, slopes_.data());
        slope_sum_ = loss.slope_sum;
        return loss.value;
    }
    /// What the softmax is multiplied by in the gradient.
    double softmax_slope() const { return target_weight_ - weight_ * slope_sum_; }
    /// Adds the rest of the gradient.
    template <typename T>
    void add_slopes(T* dlogits, double scale) const {
        for (size_t j = 0; j < slopes_.size(); ++j) dlogits[ids_[j]] += static_cast<T>(scale * weight_ * slopes_[j]);
        dlogits[target_] -= static_cast<T>(scale * target_weight_);
    }

  private:
    double beta_, weight_, target_weight_;
    double slope_sum_ = 0;
    int32_t target_;
    const int32_t* ids_;
    std::vector<double> teacher_, student_, slopes_;
};

bool is_evaluation(const HeadLoss& args) {
    return args.dhidden.empty() && args.dweight.empty();
}

/// The targets [begin, begin + count), whose logits are the first rows of the scratch.
HeadLoss chunk_of(const HeadLoss& args, int64_t begin, int64_t count) {
    const auto part = [&](const Tensor& t) { return t.empty() ? t : t.slice(0, begin, begin + count); };
    std::optional<PolicyTerms> policy = args.policy;
    if (policy) policy->table.of_targets.begins = policy->table.of_targets.begins.slice(0, begin, begin + count + 1);
    std::optional<TeacherTokens> teacher = args.teacher;
    if (teacher)
        for (Tensor* t : {&teacher->divergences, &teacher->ids, &teacher->log_probs}) *t = part(*t);
    return {.nll = part(args.nll),
            .correct = part(args.correct),
            .entropy = part(args.entropy),
            .dhidden = part(args.dhidden),
            .dweight = args.dweight,
            .dweight_mode = begin > 0 ? Grad::accumulate : args.dweight_mode,
            .logits = args.logits.slice(0, 0, count),
            .hidden = part(args.hidden),
            .weight = args.weight,
            .targets = part(args.targets),
            .scales = part(args.scales),
            .token_loss = args.token_loss,
            .policy = policy,
            .teacher = teacher,
            .temperature = args.temperature};
}

/// d loss / d nll of the targets of a chunk.
class Scales {
  public:
    explicit Scales(const HeadLoss& chunk)
        : scales_(chunk.policy || is_evaluation(chunk) ? nullptr : chunk.scales.as<double>()), loss_(chunk.token_loss) {
        if (chunk.policy) terms_ = pointers_of(*chunk.policy);
    }
    double of(int64_t target, double nll) const {
        if (terms_) return scale_of_target(*terms_, target, nll, {});
        return given_scale(loss_, scales_[target], nll);
    }

  private:
    const double* scales_;
    TokenLoss loss_;
    std::optional<TermPointers> terms_;
};

/// nll, correct and, in training, the gradients of one chunk's logits in their place.
void row_losses(const Context& ctx, const HeadLoss& chunk) {
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::row_losses(ctx, chunk);
    dispatch_float(chunk.weight.dtype, [&]<typename T>() {
        const Rows<T> logits{chunk.logits.as<T>(), chunk.logits.stride[0]};
        const int64_t count = chunk.logits.size(0), vocab = chunk.logits.size(1);
        const int32_t* const targets = chunk.targets.as<int32_t>();
        const bool training = !is_evaluation(chunk);
        const Scales scales(chunk);
        double* const nll = chunk.nll.as<double>();
        uint8_t* const correct = chunk.correct.empty() ? nullptr : chunk.correct.as<uint8_t>();
        double* const entropy = chunk.entropy.empty() ? nullptr : chunk.entropy.as<double>();
        const Entropy wanted = entropy ? Entropy::computed : Entropy::left_out;
#pragma omp parallel for schedule(static) if (count * vocab >= parallel_from)
        for (int64_t i = 0; i < count; ++i) {
            std::optional<TeacherRow> teacher;
            if (chunk.teacher) teacher.emplace(*chunk.teacher, i, logits[i], targets[i]);
            const RowLoss loss = row_loss(logits[i], vocab, targets[i], wanted);
            const double scale = training ? scales.of(i, loss.nll) : 0;
            if (teacher) {
                chunk.teacher->divergences.as<double>()[i] = teacher->loss(loss.nll);
                if (training) scaled_softmax(logits[i], vocab, loss.sum, scale * teacher->softmax_slope());
                if (scale != 0) teacher->add_slopes(logits[i], scale);
            } else if (training) {
                scaled_softmax(logits[i], vocab, loss.sum, scale);
                if (scale != 0) logits[i][targets[i]] -= static_cast<T>(scale);
            }
            nll[i] = loss.nll;
            if (correct) correct[i] = loss.correct;
            if (entropy) entropy[i] = loss.entropy;
        }
    });
}

void check_targets(std::span<const int32_t> targets, int64_t vocab) {
    for (size_t i = 0; i < targets.size(); ++i)
        if (targets[i] < 0 || targets[i] >= vocab)
            fail(Exit::data, "target {}: token {} is outside the vocabulary [0, {})", i, targets[i], vocab);
}

void check_teacher(const Context& ctx, const TeacherTokens& teacher, int64_t targets, int64_t vocab) {
    const ShapeCheck check = check_in_double(ctx, "head_loss");
    const int64_t k = teacher.ids.size(1);
    require(k > 0 && k <= TeacherTokens::max_k, "head_loss: {} tokens of a teacher, expected 1 to {}", k,
            TeacherTokens::max_k);
    check("divergences", teacher.divergences, DType::f64, {targets});
    check("ids of the teacher", teacher.ids, DType::i32, {targets, k});
    check("log_probs of the teacher", teacher.log_probs, DType::f32, {targets, k});
    if (ctx.device == Device::cuda) return;
    for (int64_t i = 0; i < targets * k; ++i) {
        const int32_t id = teacher.ids.as<int32_t>()[i];
        if (id < -1 || id >= vocab)
            fail(Exit::data, "target {}: token {} of the teacher is outside the vocabulary [0, {})", i / k, id, vocab);
    }
}

void check_args(const Context& ctx, const HeadLoss& args) {
    const ShapeCheck check(ctx, "head_loss", args.weight.dtype);
    const int64_t targets = args.targets.size(0), vocab = args.weight.size(0), hidden = args.weight.size(1);
    check("weight", args.weight, {vocab, hidden});
    check("hidden", args.hidden, {targets, hidden});
    check("logits", args.logits, {args.logits.size(0), vocab});
    if (!args.dhidden.empty()) check("dhidden", args.dhidden, {targets, hidden});
    if (!args.dweight.empty()) check("dweight", args.dweight, sum_dtype(args.weight.dtype), {vocab, hidden});
    check("targets", args.targets, DType::i32, {targets});
    check("nll", args.nll, DType::f64, {targets});
    if (!args.correct.empty()) check("correct", args.correct, DType::u8, {targets});
    if (!args.entropy.empty()) check("entropy", args.entropy, DType::f64, {targets});
    require(args.temperature > 0, "head_loss: temperature {}, expected a number above 0", args.temperature);
    if (args.policy) {
        const RatioLevel ratio = args.policy->settings.ratio;
        require(ratio == RatioLevel::token && args.scales.empty() && args.token_loss == TokenLoss::nll,
                "head_loss: policy terms need a ratio of tokens, and no other scales or loss");
        check_policy_terms(ctx, "head_loss", *args.policy, targets);
    }
    if (args.teacher) {
        require(!args.policy && args.token_loss == TokenLoss::nll, "head_loss: a teacher, and another loss");
        check_teacher(ctx, *args.teacher, targets, vocab);
    }
    require(targets > 0 || args.dweight.empty() || args.dweight_mode == Grad::accumulate,
            "head_loss: no targets, so the weight's gradient cannot be overwritten");
    require(args.logits.size(0) > 0, "head_loss: the logits scratch {} has no rows", args.logits);
    if (!args.scales.empty() || !(is_evaluation(args) || args.policy))
        check("scales", args.scales, DType::f64, {targets});
    if (ctx.device == Device::cpu) check_targets(elements<const int32_t>(args.targets), vocab);
}

}  // namespace

void head_loss(const Context& ctx, const HeadLoss& args) {
    check_args(ctx, args);
    const double cooling = 1 / args.temperature;
    const int64_t targets = args.targets.size(0), rows = args.logits.size(0);
    for (int64_t begin = 0; begin < targets; begin += rows) {
        const HeadLoss chunk = chunk_of(args, begin, std::min(rows, targets - begin));
        gemm(ctx, {.c = chunk.logits, .a = chunk.hidden, .b = chunk.weight, .transpose_b = true, .alpha = cooling});
        row_losses(ctx, chunk);
        if (!chunk.dhidden.empty())
            gemm(ctx, {.c = chunk.dhidden, .a = chunk.logits, .b = chunk.weight, .alpha = cooling});
        if (!chunk.dweight.empty())
            gemm(ctx, {.c = chunk.dweight,
                       .a = chunk.logits,
                       .b = chunk.hidden,
                       .transpose_a = true,
                       .alpha = cooling,
                       .beta = beta_of(chunk.dweight_mode)});
    }
}

}  // namespace colonnade
