#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>

#include "engine/device/gpu.cuh"
#include "engine/ranks/communicator.h"
#include "engine/ranks/opened_nccl.h"

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
            fail(Exit::internal, "NCCL has no sum for {} here", dtype);
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

/// NCCL reads its settings from the environment, once. Values set by the user are kept.
void set_environment(bool deterministic) {
    // NVLink multicast gains nothing with fewer than five GPUs, and its sums differ from run to run.
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
        // Highest priority: otherwise a sum would wait until the GEMMs that run at the same time have finished.
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
            // During an error the other ranks may never reach the destroy call.
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

    Ticket all_reduce(const Reduce& a) override {
        const Wire wire = send(a);
        check_nccl(ncclAllReduce(wire.data, wire.data, static_cast<size_t>(a.bucket.size()), nccl_type(wire.dtype),
                                 ncclSum, comm_, stream_),
                   "ncclAllReduce", comm_);
        receive(a, wire, a.bucket);
        return finish(a.what);
    }

    Ticket reduce_scatter(const Reduce& a) override {
        const Wire wire = send(a);
        const Shape s = shape_of(a.bucket.size());
        const auto element = static_cast<int64_t>(bytes_of(wire.dtype));
        check_nccl(ncclGroupStart(), "ncclGroupStart");
        if (s.each > 0)
            check_nccl(ncclReduceScatter(wire.data, wire.data + ranks_.rank() * s.each * element,
                                         static_cast<size_t>(s.each), nccl_type(wire.dtype), ncclSum, comm_, stream_),
                       "ncclReduceScatter", comm_);
        char* rest = wire.data + s.even() * element;
        if (s.rest > 0)
            check_nccl(
                ncclAllReduce(rest, rest, static_cast<size_t>(s.rest), nccl_type(wire.dtype), ncclSum, comm_, stream_),
                "ncclAllReduce", comm_);
        check_nccl(ncclGroupEnd(), "ncclGroupEnd", comm_);
        receive(a, wire, part_of(a.bucket, ranks_.rank(), ranks_.size()));
        return finish(a.what);
    }

    Ticket all_gather(const AllGather& a) override {
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

    Ticket broadcast(const Broadcast& a) override {
        follow_compute_stream();
        check_nccl(ncclBroadcast(a.data.data, a.data.data, a.data.bytes(), ncclUint8, a.from, comm_, stream_),
                   "ncclBroadcast", comm_);
        return finish(a.what);
    }

    void wait(Ticket ticket) override {
        check_cuda(cudaStreamWaitEvent(gpu_.stream(), done_[slot_of(ticket)].event), "cudaStreamWaitEvent");
    }

    void all_reduce_scalars(const std::vector<Scalars>& scalars) override {
        follow_compute_stream();
        check_nccl(ncclGroupStart(), "ncclGroupStart");
        for (const Scalars& s : scalars)
            check_nccl(ncclAllReduce(s.values.data, s.values.data, static_cast<size_t>(s.values.numel()), ncclFloat64,
                                     s.op == Op::max ? ncclMax : ncclSum, comm_, stream_),
                       "ncclAllReduce", comm_);
        check_nccl(ncclGroupEnd(), "ncclGroupEnd", comm_);
        wait(finish("sums of the step"));
    }

  private:
    /// A bucket as equal parts and a remainder, which the last rank owns as well.
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

    /// A bucket as NCCL sees it: in place, or rounded to bf16 in the scratch.
    struct Wire {
        char* data;
        DType dtype;
        bool narrowed;
    };
    Wire send(const Reduce& a) {
        follow_compute_stream();
        if (a.wire != DType::bf16 || a.flat.dtype != DType::f32)
            return {at(a.flat, a.bucket.begin), a.flat.dtype, false};
        const int64_t n = a.bucket.size();
        require(a.scratch.numel() >= n * 2, "reduce in bf16: scratch of {} bytes is too small", a.scratch.numel());
        char* data = reinterpret_cast<char*>(a.scratch.as<uint8_t>());
        if (n > 0)
            narrow<<<blocks_for(n), cast_threads, 0, stream_>>>(reinterpret_cast<__nv_bfloat16*>(data),
                                                                a.flat.as<float>() + a.bucket.begin, n);
        check_launch("narrow");
        return {data, DType::bf16, true};
    }
    /// Writes the sums in `valid` back to the flat buffer.
    void receive(const Reduce& a, const Wire& wire, const Range& valid) {
        if (!wire.narrowed || valid.size() == 0) return;
        widen<<<blocks_for(valid.size()), cast_threads, 0, stream_>>>(
            a.flat.as<float>() + valid.begin,
            reinterpret_cast<const __nv_bfloat16*>(wire.data) + (valid.begin - a.bucket.begin), valid.size());
        check_launch("widen");
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

    /// Called by the watchdog's thread.
    Watchdog::Probe probe() {
        cudaSetDevice(device_);  // for this thread, which would otherwise initialise device 0
        const std::lock_guard lock(mutex_);
        Watchdog::Probe found;
        ncclResult_t status = ncclSuccess;
        if (comm_ && (ncclCommGetAsyncError(comm_, &status) != ncclSuccess ||
                      (status != ncclSuccess && status != ncclInProgress)))
            found.error = fmt::format("NCCL failed: {}", ncclGetErrorString(status));
        seen_done_ = std::max(seen_done_, last_ - static_cast<Ticket>(kept) + 1);
        while (seen_done_ < last_ && cudaEventQuery(done_[slot_of(seen_done_ + 1)].event) == cudaSuccess) ++seen_done_;
        if (seen_done_ < last_) found.in_progress = done_[slot_of(seen_done_ + 1)].what;
        return found;
    }

    static constexpr size_t kept = 1024;  ///< more than the collectives of the two steps that may be in progress
    Gpu& gpu_;
    int device_ = 0;
    ncclComm_t comm_ = nullptr;
    cudaStream_t stream_ = nullptr;
    cudaEvent_t ready_ = nullptr;
    std::array<Done, kept> done_;
    std::mutex mutex_;  ///< guards the tickets: the main thread and the watchdog's use them
    Ticket last_ = 0, seen_done_ = 0;
};

}  // namespace

bool built_with_nccl() {
    return true;
}

std::string nccl_version() {
    int version = 0;
    if (!has_nccl() || ncclGetVersion(&version) != ncclSuccess) return "";
    return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::unique_ptr<Communicator> join_by_nccl(const Ranks& ranks, Gpu& gpu, bool deterministic) {
    return std::make_unique<NcclCommunicator>(ranks, gpu, deterministic);
}

}  // namespace colonnade
