#pragma once
// Communicator: the large sums and copies of a training step over the ranks of a run, by NCCL between GPUs and by MPI
// between CPU processes.
//
// It works on buckets, runs of elements of a flat buffer that every rank has. Of a bucket each rank owns one part:
//
//     sum, everywhere   element i becomes the sum of the ranks' elements i
//     sum, scattered    the same in a rank's own part only; the rest of the bucket is then worthless (reduce-scatter)
//     share             everybody gets every part from its owner (all-gather)
//
// and spreads bytes of one rank to all.
//
// On the CPU the calls wait; sums are made in rank order, so that the same number of ranks gives the same bits in every
// run, and "scattered" those of "everywhere". On GPUs the calls enqueue on a stream of their own, behind what the compute
// stream holds at that moment, and wait() lets the compute stream wait, never the host. NCCL's order of summation is fixed
// where algorithm and protocol are: `deterministic` asks for Ring and Simple. Between two ranks it cannot matter.

#include <memory>
#include <string>

#include "engine/device/context.h"
#include "engine/ranks/ranks.h"

namespace colonnade {

/// Elements [begin, end) of a flat buffer.
struct Slice {
    int64_t begin = 0, end = 0;
    int64_t size() const { return end - begin; }
    bool operator==(const Slice&) const = default;
};

/// The part of a bucket that a rank owns: a multiple of 64 elements, the last rank's takes what is over.
Slice part_of(const Slice& bucket, int rank, int ranks);

class Communicator {
  public:
    /// Joins the ranks: over NCCL with a GPU, else over MPI. Throws Exit::config where this build cannot, Exit::peer where
    /// NCCL fails. `ranks` and `gpu` must outlive it.
    static std::unique_ptr<Communicator> join(const Ranks& ranks, Gpu* gpu, bool deterministic);
    virtual ~Communicator() = default;

    /// Bytes of the memory that sum() and share() of such buckets want as `scratch`.
    static size_t scratch_bytes(Device device, int ranks, int64_t largest_bucket, DType dtype, DType wire);

    using Ticket = int64_t;
    struct Sum {
        Tensor flat;  ///< f32; on the CPU f64, too
        Slice bucket;
        bool scattered = false;
        DType wire = DType::f32;  ///< bf16: every rank's elements are rounded to bf16 before they travel
        Tensor scratch;           ///< u8 [scratch_bytes]; the same for every call
        std::string what;         ///< for the watchdog
    };
    virtual Ticket sum(const Sum& args) = 0;
    struct Share {
        Tensor flat;  ///< any dtype
        Slice bucket;
        Tensor scratch{};
        std::string what;
    };
    virtual Ticket share(const Share& args) = 0;
    struct Spread {
        Tensor data;  ///< contiguous, as many bytes everywhere; that of rank `from` replaces the others'
        int from = 0;
        std::string what;
    };
    virtual Ticket spread(const Spread& args) = 0;
    /// What is enqueued on the compute stream from now on comes after this sum, share or spread.
    virtual void wait(Ticket ticket) = 0;
    /// A few f64: their sums, or the largest of each.
    struct Numbers {
        Tensor values;
        bool largest = false;
    };
    /// Everywhere, before whatever comes next on the compute stream.
    virtual void combine(const std::vector<Numbers>& numbers) = 0;

    /// Rank 0 gets rank r's part of each bucket from rank r. `own` is this rank's parts one after the other, in host
    /// memory; `into`, the whole flat buffer, is used on rank 0 alone.
    void collect(const Tensor& into, const Tensor& own, const std::vector<Slice>& buckets) const;

    const Ranks& ranks() const { return ranks_; }

  protected:
    explicit Communicator(const Ranks& ranks) : ranks_(ranks) {}
    const Ranks& ranks_;
};

/// True when the build found NCCL.
bool built_with_nccl();
/// engine/ranks/communicator_nccl.cu, or an error where there is none.
std::unique_ptr<Communicator> join_by_nccl(const Ranks& ranks, Gpu& gpu, bool deterministic);

}  // namespace colonnade
