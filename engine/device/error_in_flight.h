#pragma once
#include "engine/device/error.h"
namespace colonnade {
Error error_in_flight();
[[noreturn]] void end_without_memory(const char* who);
}
