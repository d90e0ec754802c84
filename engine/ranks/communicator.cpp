#include "engine/ranks/communicator.h"

#include <cstring>
#include <functional>

#include "engine/device/float16.h"
#include "engine/ranks/message_passing.h"

namespace colonnade {
namespace {

/// Limit of the elements of a part in one message.
constexpr int64_t most_elements = int64_t{1} << 18;

/// Elements per message: at least the longest part of the bucket, up to the limit.
int64_t chunk_of(int64_t bucket, int ranks) {
    return std::min(most_elements, bucket / ranks + 64 * ranks);
}

/// Parts are exchanged chunk by chunk. The scratch holds two chunks per rank: one to send, one to receive.
class MpiCommunicator : public Communicator {
  public:
    explicit MpiCommunicator(const Ranks& ranks) : Communicator(ranks) {}

    Ticket all_reduce(const Reduce& a) override {
        if (!ranks_.several()) return 0;
        const Watchdog::Wait wait(ranks_.watchdog(), a.what);
        reduce(a);
        gather_parts(a.flat, a.bucket, a.scratch);
        return 0;
    }

    Ticket reduce_scatter(const Reduce& a) override {
        if (!ranks_.several()) return 0;
        const Watchdog::Wait wait(ranks_.watchdog(), a.what);
        reduce(a);
        return 0;
    }

    Ticket all_gather(const AllGather& a) override {
        if (!ranks_.several()) return 0;
        const Watchdog::Wait wait(ranks_.watchdog(), a.what);
        gather_parts(a.flat, a.bucket, a.scratch);
        return 0;
    }

    Ticket broadcast(const Broadcast& a) override {
        if (!ranks_.several()) return 0;
        const Watchdog::Wait wait(ranks_.watchdog(), a.what);
        mpi::broadcast(a.data.data, a.data.bytes(), a.from);
        return 0;
    }

    void wait(Ticket) override {}

    void all_reduce_scalars(const std::vector<Scalars>& scalars) override {
        for (const Scalars& s : scalars) {
            double* values = s.values.as<double>();
            const std::vector<double> own(values, values + s.values.numel());
            const std::vector<double> all =
                s.op == Op::max ? ranks_.max("maxima of the step", own) : ranks_.sum("sums of the step", own);
            std::copy(all.begin(), all.end(), values);
        }
    }

  private:
    Range part(const Range& bucket, int rank) const { return part_of(bucket, rank, ranks_.size()); }

    /// Calls visit(of_rank) chunk by chunk; of_rank(r) is the chunk's range in rank r's part.
    template <typename Visit>
    void by_chunks(const Range& bucket, int64_t chunk, Visit&& visit) const {
        const int64_t longest = part(bucket, ranks_.size() - 1).size();
        for (int64_t done = 0; done < longest; done += chunk) {
            visit([&, done](int rank) {
                const Range p = part(bucket, rank);
                const int64_t begin = std::min(p.end, p.begin + done);
                return Range{begin, std::min(p.end, begin + chunk)};
            });
        }
    }

    /// The sums in this rank's own part.
    void reduce(const Reduce& a) const {
        dispatch_float(a.flat.dtype, [&]<typename T>() {
            if (a.wire == DType::bf16)
                sum_parts<T, uint16_t>(
                    a, [](T x) { return bf16_from_float(static_cast<float>(x)); },
                    [](uint16_t x) { return static_cast<T>(float_from_bf16(x)); });
            else
                sum_parts<T, T>(a, std::identity(), std::identity());
        });
    }

    template <typename T, typename Wire, typename Narrow, typename Widen>
    void sum_parts(const Reduce& a, Narrow&& narrow, Widen&& widen) const {
        const int n = ranks_.size();
        const int64_t chunk = chunk_of(a.bucket.size(), n);
        Wire* out = reinterpret_cast<Wire*>(a.scratch.as<uint8_t>());
        Wire* in = out + n * chunk;
        require(static_cast<int64_t>(sizeof(Wire)) * 2 * n * chunk <= a.scratch.numel(),
                "reduce: scratch of {} bytes is too small", a.scratch.numel());
        T* flat = a.flat.as<T>();
        by_chunks(a.bucket, chunk, [&](auto&& of_rank) {
            for (int r = 0; r < n; ++r) {
                const Range s = of_rank(r);
                std::transform(flat + s.begin, flat + s.end, out + r * chunk, narrow);
            }
            mpi::all_to_all(in, out, static_cast<size_t>(chunk) * sizeof(Wire));
            const Range own = of_rank(ranks_.rank());
#pragma omp parallel for simd schedule(static)
            for (int64_t i = 0; i < own.size(); ++i) {
                T total = widen(in[i]);
                for (int r = 1; r < n; ++r) total += widen(in[r * chunk + i]);
                flat[own.begin + i] = total;
            }
        });
    }

    void gather_parts(const Tensor& flat, const Range& bucket, const Tensor& scratch) const {
        const int n = ranks_.size();
        const auto element = static_cast<int64_t>(bytes_of(flat.dtype));
        const int64_t chunk = chunk_of(bucket.size(), n);
        require(element * n * chunk <= scratch.numel(), "all_gather: scratch of {} bytes is too small",
                scratch.numel());
        char* slots = reinterpret_cast<char*>(scratch.as<uint8_t>());
        char* data = static_cast<char*>(flat.data);
        const auto slot = [&](int rank) { return slots + rank * chunk * element; };
        const auto bytes = [&](const Range& s) { return static_cast<size_t>(s.size() * element); };
        by_chunks(bucket, chunk, [&](auto&& of_rank) {
            const Range own = of_rank(ranks_.rank());
            std::memcpy(slot(ranks_.rank()), data + own.begin * element, bytes(own));
            mpi::all_gather(slots, slot(ranks_.rank()), static_cast<size_t>(chunk * element));
            for (int r = 0; r < n; ++r)
                if (r != ranks_.rank()) std::memcpy(data + of_rank(r).begin * element, slot(r), bytes(of_rank(r)));
        });
    }
};

}  // namespace

Range part_of(const Range& bucket, int rank, int ranks) {
    constexpr int64_t granule = 64;  // required by AdamW's decay map and by 16-byte loads
    const int64_t each = bucket.size() / (granule * ranks) * granule;
    const int64_t begin = bucket.begin + rank * each;
    return {begin, rank == ranks - 1 ? bucket.end : begin + each};
}

std::unique_ptr<Communicator> Communicator::join(const Ranks& ranks, Gpu* gpu, bool deterministic) {
    if (gpu) return join_by_nccl(ranks, *gpu, deterministic);
    return std::make_unique<MpiCommunicator>(ranks);
}

size_t Communicator::scratch_bytes(Device device, int ranks, int64_t largest_bucket, DType dtype, DType wire) {
    if (device == Device::cuda) return wire == DType::bf16 ? static_cast<size_t>(largest_bucket) * bytes_of(wire) : 0;
    return 2 * static_cast<size_t>(ranks) * static_cast<size_t>(chunk_of(largest_bucket, ranks)) * bytes_of(dtype);
}

void Communicator::gather(const Tensor& into, const Tensor& own, const std::vector<Range>& buckets) const {
    const int n = ranks_.size();
    const size_t element = bytes_of(own.dtype);
    const char* from = static_cast<const char*>(own.data);
    std::vector<char> slots, padded;
    for (const Range& bucket : buckets) {
        const Watchdog::Wait wait(ranks_.watchdog(), "optimizer state", Deadline::none);
        const Range mine = part_of(bucket, ranks_.rank(), n);
        const int64_t longest = part_of(bucket, n - 1, n).size();
        for (int64_t done = 0; done < longest; done += most_elements) {
            const int64_t chunk = std::min(most_elements, longest - done);
            const auto of = [&](const Range& part) {
                const int64_t begin = std::min(part.end, part.begin + done);
                return Range{begin, std::min(part.end, begin + chunk)};
            };
            padded.resize(static_cast<size_t>(chunk) * element);
            std::memcpy(padded.data(), from + static_cast<size_t>(of(mine).begin - mine.begin) * element,
                        static_cast<size_t>(of(mine).size()) * element);
            if (n == 1) {
                slots = padded;
            } else {
                if (ranks_.first()) slots.resize(padded.size() * static_cast<size_t>(n));
                mpi::gather(slots.data(), padded.data(), padded.size());
            }
            if (!ranks_.first()) continue;
            for (int r = 0; r < n; ++r) {
                const Range part = of(part_of(bucket, r, n));
                std::memcpy(static_cast<char*>(into.data) + static_cast<size_t>(part.begin) * element,
                            slots.data() + static_cast<size_t>(r) * padded.size(),
                            static_cast<size_t>(part.size()) * element);
            }
        }
        from += static_cast<size_t>(mine.size()) * element;
    }
}

}  // namespace colonnade
