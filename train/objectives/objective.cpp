#include "train/objectives/objective.h"

namespace colonnade {

void Objective::measure(const Context&, const ObjectiveStep&) const {
    fail(Exit::internal, "this objective measures no answers");
}

void Objective::take_reference(const Context&, const ObjectiveBuffers&) const {
    fail(Exit::internal, "this objective knows no reference");
}

}  // namespace colonnade
