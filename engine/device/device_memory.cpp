#include "engine/device/device_memory.h"

#include <cstring>

namespace colonnade {

void clear(const Context& ctx, const Tensor& t) {
    if (ctx.gpu) return ctx.gpu->zero(t);
    if (t.numel() > 0) std::memset(t.data, 0, t.bytes());
}

void copy(const Context& ctx, const Tensor& to, const Tensor& from) {
    require(to.bytes() == from.bytes(), "copy of {} into {}", from, to);
    if (ctx.gpu) return ctx.gpu->copy(to, from);
    if (to.numel() > 0) std::memcpy(to.data, from.data, to.bytes());
}

void put(const Context& ctx, const Tensor& to, const void* from) {
    if (ctx.gpu) return ctx.gpu->upload(to, from);
    if (to.numel() > 0) std::memcpy(to.data, from, to.bytes());
}

}  // namespace colonnade
