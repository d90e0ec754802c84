#pragma once

#include "train/config/config.h"
#include "train/objectives/objective.h"

namespace colonnade {

/// The objective of the config's stage.
std::shared_ptr<const Objective> make_objective(const Config& config);

/// What evaluation reports of a model: eval_loss and the objective's metrics, with the prefix eval_.
std::vector<Metric> evaluation_metrics(const Objective& objective, const LossSums& sums);
/// The value of a metric; NaN if it is not among `metrics`.
double metric_named(const std::vector<Metric>& metrics, const std::string& name);
/// Throws Exit::config, with all names, if metric_for_best_model is not one that the stage's evaluation reports.
void require_metric(const Config& config);

}  // namespace colonnade
