// The only file that knows Python.
#include <nanobind/nanobind.h>

NB_MODULE(_native, m) { m.doc() = "C++ core of the edge node"; }
