// What each file here adds to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace flashgate::python {

void bind_matrices(nanobind::module_& m);
void bind_mixers(nanobind::module_& m);
void bind_pointwise(nanobind::module_& m);
void bind_reader(nanobind::module_& m);

}  // namespace flashgate::python
