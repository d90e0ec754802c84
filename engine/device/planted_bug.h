#pragma once
// Faults that a check must find: `colonnade selftest`, or param_checksum_steps if they are those of one rank. A build has
// none, unless COLONNADE_PLANTED_BUG names one: the CMake option of that name for a whole build, or the programs
// planted_<fault>_test, each of which compiles one faulty source.

namespace colonnade {

enum class PlantedBug {
    none,
    mask,        ///< data/packing/batch.cpp: every key is hidden one row too late
    gradient,    ///< layers/linear.cpp: gradients of weights are scaled by 1.01
    micro_step,  ///< train/step/learner.cpp: the second micro-step of a step is lost
    weight_bit,  ///< train/step/learner_update.cpp: after step 5 a bit of a weight of rank 1 flips
};

#ifdef COLONNADE_PLANTED_BUG
constexpr PlantedBug planted_bug = PlantedBug::COLONNADE_PLANTED_BUG;
#else
constexpr PlantedBug planted_bug = PlantedBug::none;
#endif

}  // namespace colonnade
