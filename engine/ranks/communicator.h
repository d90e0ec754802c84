#pragma once
// Communicator: the collectives of a training step, by NCCL between GPUs and by MPI between CPU processes.
//
// Sums and gathers work on buckets: ranges of a flat buffer that every rank has. Each rank owns one part of a bucket
// (part_of):
//
//     all_reduce       element i becomes the sum of the ranks' elements i, on every rank
//     reduce_scatter   the same in the rank's own part only; the rest of the bucket is then undefined
//     all_gather       every rank gets every part from its owner
//
// On the CPU the calls block. Sums are taken in rank order, so the same number of ranks gives the same bits in every
// run, and reduce_scatter gives the same bits as all_reduce. On GPUs the calls enqueue on a separate stream, after the
// work that is on the compute stream at that moment; wait() makes the compute stream wait, never the host. NCCL sums in
// a fixed order if its algorithm and protocol are fixed: `deterministic` requests Ring and Simple. With two ranks the
// order does not matter.

#include <memory>
#include <string>

#include "engine/device/context.h"
#include "engine/ranks/ranks.h"

namespace colonnade {

/// Elements [begin, end) of a flat buffer.
struct Range {
    int64_t begin = 0, end = 0;
    int64_t size() const { return end - begin; }
    bool operator==(const Range&) const = default;
};

/// The part of a bucket that a rank owns: a multiple of 64 elements; the last rank also owns the remainder.
Range part_of(const Range& bucket, int rank, int ranks);

class Communicator {
  public:
    /// Joins the ranks: over NCCL with a GPU, else over MPI. Throws Exit::config if this build cannot, Exit::peer if
    /// NCCL fails. `ranks` and `gpu` must outlive it.
    static std::unique_ptr<Communicator> join(const Ranks& ranks, Gpu* gpu, bool deterministic);
    virtual ~Communicator() = default;

    /// Bytes of scratch memory that the calls below need for buckets of at most this size.
    static size_t scratch_bytes(Device device, int ranks, int64_t largest_bucket, DType dtype, DType wire);

    /// Identifies an enqueued collective.
    using Ticket = int64_t;

    struct Reduce {
        Tensor flat;  ///< f32; on the CPU also f64
        Range bucket;
        DType wire = DType::f32;  ///< bf16: every rank's elements are rounded to bf16 before they are sent
        Tensor scratch{};         ///< u8 [scratch_bytes()]; all calls may share it
        std::string what;         ///< name for the watchdog's messages
    };
    virtual Ticket all_reduce(const Reduce& args) = 0;
    virtual Ticket reduce_scatter(const Reduce& args) = 0;

    struct AllGather {
        Tensor flat;  ///< any dtype
        Range bucket;
        Tensor scratch{};  ///< as for Reduce; not needed on a GPU
        std::string what;
    };
    virtual Ticket all_gather(const AllGather& args) = 0;

    struct Broadcast {
        Tensor data;  ///< contiguous, the same number of bytes on every rank
        int from = 0;
        std::string what;
    };
    virtual Ticket broadcast(const Broadcast& args) = 0;

    /// Work enqueued on the compute stream from now on runs after this collective.
    virtual void wait(Ticket ticket) = 0;

    enum class Op { sum, max };
    struct Scalars {
        Tensor values;  ///< f64, a few
        Op op = Op::sum;
    };
    /// All-reduce of a few numbers, completed before whatever is enqueued on the compute stream next.
    virtual void all_reduce_scalars(const std::vector<Scalars>& scalars) = 0;

    /// Rank 0 receives every rank's part of each bucket. `own` holds this rank's parts one after the other, in host
    /// memory; `into`, the whole flat buffer, is used on rank 0 only.
    void gather(const Tensor& into, const Tensor& own, const std::vector<Range>& buckets) const;

    const Ranks& ranks() const { return ranks_; }

  protected:
    explicit Communicator(const Ranks& ranks) : ranks_(ranks) {}
    const Ranks& ranks_;
};

/// True if the build found NCCL.
bool built_with_nccl();
/// "2.27.3": the NCCL in use; empty if there is none.
std::string nccl_version();
/// Defined in engine/ranks/communicator_nccl.cu; throws Exit::config in a build without NCCL, and in one that opens it
/// and finds none.
std::unique_ptr<Communicator> join_by_nccl(const Ranks& ranks, Gpu& gpu, bool deterministic);

}  // namespace colonnade
