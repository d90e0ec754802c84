#include <nccl.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>

#include "engine/device/gpu.cuh"
#include "engine/ranks/communicator.h"

namespace colonnade {
namespace {

void check_nccl(ncclResult_t status, const char* what, ncclComm_t comm = nullptr) {
    if (status == ncclSuccess || status == ncclInProgress) return;
    const char* more = ncclGetLastError(comm);
    fail(Exit::peer, "NCCL failed: {}: {}{}{}", what, ncclGetErrorString(status), more && *more ? ": " : "",
         more ? more : "");
}

ncclDataType_t nccl_type(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return ncclFloat32;
        case DType::f64:
            return ncclFloat64;
        case DType::bf16:
            return ncclBfloat16;
        default:
            fail(Exit::internal, "NCCL is not asked to add up {}", name_of(dtype));
    }
}

constexpr int cast_threads = 256;

__global__ void narrow(__nv_bfloat16* to, const float* from, int64_t elements) {
    const int64_t i = int64_t{blockIdx.x} * cast_threads + threadIdx.x;
    if (i < elements) to[i] = __float2bfloat16_rn(from[i]);
}
__global__ void widen(float* to, const __nv_bfloat16* from, int64_t elements) {
    const int64_t i = int64_t{blockIdx.x} * cast_threads + threadIdx.x;
    if (i < elements) to[i] = __bfloat162float(from[i]);
}

unsigned blocks_for(int64_t elements) {
    return static_cast<unsigned>((elements + cast_threads - 1) / cast_threads);
}

/// NCCL reads its settings from the environment, once. What the user has set stays.
void set_environment(bool deterministic) {
    // NVLink multicast gains nothing below five GPUs, and its sums differ from run to run.
    if (const char* nvls = std::getenv("NCCL_NVLS_ENABLE"); nvls && std::strcmp(nvls, "0") != 0)
        fail(Exit::config, "NCCL_NVLS_ENABLE is {}: only 0 is supported, leave it unset", nvls);
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    if (!deterministic) return;
    setenv("NCCL_ALGO", "Ring", 0);
    setenv("NCCL_PROTO", "Simple", 0);
}

class NcclCommunicator : public Communicator {
  public:
    NcclCommunicator(const Ranks& ranks, Gpu& gpu, bool deterministic) : Communicator(ranks), gpu_(gpu) {
        set_environment(deterministic);
        std::string id(sizeof(ncclUniqueId), '\0');
        ncclUniqueId unique{};
        if (ranks.first()) check_nccl(ncclGetUniqueId(&unique), "ncclGetUniqueId");
        std::memcpy(id.data(), &unique, sizeof unique);
        id = ranks.broadcast("NCCL id", id);
        std::memcpy(&unique, id.data(), sizeof unique);
        check_cuda(cudaGetDevice(&device_), "cudaGetDevice");
        // First come the blocks of a sum: those of the products that run meanwhile would keep it waiting to their end.
        int least = 0, greatest = 0;
        check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
        check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "cudaStreamCreate");
        for (Done& done : done_)
            check_cuda(cudaEventCreateWithFlags(&done.event, cudaEventDisableTiming), "cudaEventCreate");
        check_cuda(cudaEventCreateWithFlags(&ready_, cudaEventDisableTiming), "cudaEventCreate");
        const Watchdog::Wait wait(ranks.watchdog(), "start of NCCL");
        check_nccl(ncclCommInitRank(&comm_, ranks.size(), unique, ranks.rank()), "ncclCommInitRank");
        if (ranks.watchdog()) ranks.watchdog()->set_probe([this] { return probe(); });
    }

    ~NcclCommunicator() override {
        if (ranks_.watchdog()) ranks_.watchdog()->set_probe({});
        if (comm_) {
            // With an error on its way the partners may not come.
            if (std::uncaught_exceptions() > 0)
                ncclCommAbort(comm_);
            else
                ncclCommDestroy(comm_);
        }
        for (const Done& done : done_)
            if (done.event) cudaEventDestroy(done.event);
        if (ready_) cudaEventDestroy(ready_);
        if (stream_) cudaStreamDestroy(stream_);
    }

    Ticket sum(const Sum& a) override {
        const bool narrowed = a.wire == DType::bf16 && a.flat.dtype == DType::f32;
        const DType dtype = narrowed ? DType::bf16 : a.flat.dtype;
        const int64_t n = a.bucket.size();
        follow_compute_stream();
        char* data = at(a.flat, a.bucket.begin);
        if (narrowed) {
            require(a.scratch.numel() >= n * 2, "a sum in bf16 with {} bytes of scratch", a.scratch.numel());
            data = reinterpret_cast<char*>(a.scratch.as<uint8_t>());
            if (n > 0)
                narrow<<<blocks_for(n), cast_threads, 0, stream_>>>(reinterpret_cast<__nv_bfloat16*>(data),
                                                                    a.flat.as<float>() + a.bucket.begin, n);
            check_launch("narrow");
        }
        Slice valid = a.bucket;
        if (a.scattered) {
            valid = part_of(a.bucket, ranks_.rank(), ranks_.size());
            reduce_scatter(data, n, dtype);
        } else {
            check_nccl(ncclAllReduce(data, data, static_cast<size_t>(n), nccl_type(dtype), ncclSum, comm_, stream_),
                       "ncclAllReduce", comm_);
        }
        if (narrowed && valid.size() > 0) {
            widen<<<blocks_for(valid.size()), cast_threads, 0, stream_>>>(
                a.flat.as<float>() + valid.begin,
                reinterpret_cast<const __nv_bfloat16*>(data) + (valid.begin - a.bucket.begin), valid.size());
            check_launch("widen");
        }
        return finish(a.what);
    }

    Ticket share(const Share& a) override {
        follow_compute_stream();
        const Shape s = shape_of(a.bucket.size());
        const size_t element = bytes_of(a.flat.dtype);
        char* data = at(a.flat, a.bucket.begin);
        const auto bytes = [&](int64_t elements) { return static_cast<size_t>(elements) * element; };
        check_nccl(ncclGroupStart(), "ncclGroupStart");
        if (s.each > 0)
            check_nccl(
                ncclAllGather(data + bytes(ranks_.rank() * s.each), data, bytes(s.each), ncclUint8, comm_, stream_),
                "ncclAllGather", comm_);
        if (s.rest > 0)
            check_nccl(ncclBroadcast(data + bytes(s.even()), data + bytes(s.even()), bytes(s.rest), ncclUint8,
                                     ranks_.size() - 1, comm_, stream_),
                       "ncclBroadcast", comm_);
        check_nccl(ncclGroupEnd(), "ncclGroupEnd", comm_);
        return finish(a.what);
    }

    Ticket spread(const Spread& a) override {
        follow_compute_stream();
        check_nccl(ncclBroadcast(a.data.data, a.data.data, a.data.bytes(), ncclUint8, a.from, comm_, stream_),
                   "ncclBroadcast", comm_);
        return finish(a.what);
    }

    void wait(Ticket ticket) override {
        check_cuda(cudaStreamWaitEvent(gpu_.stream(), done_[slot_of(ticket)].event), "cudaStreamWaitEvent");
    }

    void combine(const std::vector<Numbers>& numbers) override {
        follow_compute_stream();
        check_nccl(ncclGroupStart(), "ncclGroupStart");
        for (const Numbers& n : numbers)
            check_nccl(ncclAllReduce(n.values.data, n.values.data, static_cast<size_t>(n.values.numel()), ncclFloat64,
                                     n.largest ? ncclMax : ncclSum, comm_, stream_),
                       "ncclAllReduce", comm_);
        check_nccl(ncclGroupEnd(), "ncclGroupEnd", comm_);
        wait(finish("sums of the step"));
    }

  private:
    /// A bucket in equal parts, and what is over, which the last rank owns as well.
    struct Shape {
        int64_t each, rest, ranks;
        int64_t even() const { return each * ranks; }
    };
    Shape shape_of(int64_t elements) const {
        const int n = ranks_.size();
        const int64_t each = n == 1 ? elements : part_of({0, elements}, 0, n).size();
        return {each, elements - each * n, n};
    }
    static char* at(const Tensor& flat, int64_t element) {
        return static_cast<char*>(flat.data) + element * static_cast<int64_t>(bytes_of(flat.dtype));
    }

    void reduce_scatter(char* data, int64_t elements, DType dtype) {
        const Shape s = shape_of(elements);
        const auto element = static_cast<int64_t>(bytes_of(dtype));
        check_nccl(ncclGroupStart(), "ncclGroupStart");
        if (s.each > 0)
            check_nccl(ncclReduceScatter(data, data + ranks_.rank() * s.each * element, static_cast<size_t>(s.each),
                                         nccl_type(dtype), ncclSum, comm_, stream_),
                       "ncclReduceScatter", comm_);
        char* rest = data + s.even() * element;
        if (s.rest > 0)
            check_nccl(
                ncclAllReduce(rest, rest, static_cast<size_t>(s.rest), nccl_type(dtype), ncclSum, comm_, stream_),
                "ncclAllReduce", comm_);
        check_nccl(ncclGroupEnd(), "ncclGroupEnd", comm_);
    }

    void follow_compute_stream() {
        check_cuda(cudaEventRecord(ready_, gpu_.stream()), "cudaEventRecord");
        check_cuda(cudaStreamWaitEvent(stream_, ready_), "cudaStreamWaitEvent");
    }

    struct Done {
        cudaEvent_t event = nullptr;
        std::string what;
    };
    static size_t slot_of(Ticket ticket) { return static_cast<size_t>(ticket) % kept; }

    Ticket finish(const std::string& what) {
        const std::lock_guard lock(mutex_);
        Done& done = done_[slot_of(++last_)];
        done.what = what;
        check_cuda(cudaEventRecord(done.event, stream_), "cudaEventRecord");
        return last_;
    }

    /// From the watchdog's thread.
    Watchdog::Probe probe() {
        cudaSetDevice(device_);  // of this thread: it would else wake up device 0
        const std::lock_guard lock(mutex_);
        Watchdog::Probe found;
        ncclResult_t status = ncclSuccess;
        if (comm_ && (ncclCommGetAsyncError(comm_, &status) != ncclSuccess ||
                      (status != ncclSuccess && status != ncclInProgress)))
            found.error = fmt::format("NCCL failed: {}", ncclGetErrorString(status));
        seen_done_ = std::max(seen_done_, last_ - static_cast<Ticket>(kept) + 1);
        while (seen_done_ < last_ && cudaEventQuery(done_[slot_of(seen_done_ + 1)].event) == cudaSuccess) ++seen_done_;
        if (seen_done_ < last_) found.under_way = done_[slot_of(seen_done_ + 1)].what;
        return found;
    }

    static constexpr size_t kept = 1024;  ///< more than a step has collectives, and two steps may be under way
    Gpu& gpu_;
    int device_ = 0;
    ncclComm_t comm_ = nullptr;
    cudaStream_t stream_ = nullptr;
    cudaEvent_t ready_ = nullptr;
    std::array<Done, kept> done_;
    std::mutex mutex_;  ///< guards the tickets, between the main thread and the watchdog's
    Ticket last_ = 0, seen_done_ = 0;
};

}  // namespace

bool built_with_nccl() {
    return true;
}

std::unique_ptr<Communicator> join_by_nccl(const Ranks& ranks, Gpu& gpu, bool deterministic) {
    return std::make_unique<NcclCommunicator>(ranks, gpu, deterministic);
}

}  // namespace colonnade
