#pragma once
#include "engine/device/error.h"
namespace colonnade {
Error error_in_flight();
}
