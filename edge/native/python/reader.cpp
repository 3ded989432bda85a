// Reads in the background.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../reader.h"
#include "arguments.h"
#include "bind.h"

namespace flashgate::python {

using namespace nb::literals;

namespace {

// A Reader that keeps the destination of each read alive until it has been waited for. Touched under the GIL only.
class PyReader {
public:
    PyReader(std::vector<std::string> paths, size_t threads, bool direct)
        : reader_(std::move(paths), threads, direct) {}
    ~PyReader() { close(); }

    void tune(size_t queue_depth, size_t part_bytes, size_t prefetch_depth) {
        expect(part_bytes > 0 && part_bytes % Reader::kAlignment == 0, "part_bytes is not a multiple of 4096");
        reader_.tune(queue_depth, part_bytes, prefetch_depth);
    }
    uint64_t read(size_t file, uint64_t offset, Array<uint8_t, 1> out, std::optional<uint32_t> crc, bool is_prefetch) {
        constexpr size_t kAlignment = Reader::kAlignment;
        if (file >= reader_.num_files())
            refuse("file is " + std::to_string(file) + ", there are " + std::to_string(reader_.num_files()));
        expect(offset % kAlignment == 0 && offset <= uint64_t{1} << 62, "offset is not a multiple of 4096 below 2**62");
        expect(out.shape(0) > 0 && out.shape(0) % kAlignment == 0, "the size of out is not a multiple of 4096");
        expect(reinterpret_cast<uintptr_t>(out.data()) % kAlignment == 0, "out is not aligned to 4096 bytes");
        const auto urgency = is_prefetch ? Reader::Urgency::prefetch : Reader::Urgency::demand;
        const uint64_t ticket = reader_.read(file, offset, out.data(), out.shape(0), crc, urgency);
        destinations_.emplace(ticket, std::move(out));
        return ticket;
    }
    void wait(uint64_t ticket) {
        try {
            nb::gil_scoped_release released;
            reader_.wait(ticket);
        } catch (const ReadError&) {
            destinations_.erase(ticket);
            throw;
        }
        destinations_.erase(ticket);
    }
    std::vector<uint64_t> wait_any(const std::vector<uint64_t>& tickets) {
        nb::gil_scoped_release released;
        return reader_.wait_any(tickets);
    }
    bool cancel(uint64_t ticket) {
        if (!reader_.cancel(ticket)) return false;
        destinations_.erase(ticket);
        return true;
    }
    void close() {
        {
            nb::gil_scoped_release released;
            reader_.close();
        }
        destinations_.clear();
    }
    Reader& reader() { return reader_; }

private:
    Reader reader_;
    std::unordered_map<uint64_t, Array<uint8_t, 1>> destinations_;
};

}  // namespace

void bind_reader(nb::module_& m) {
    nb::exception<ReadError>(m, "ReadError");
    using Counters = Reader::Counters;
    nb::class_<Counters>(m, "ReadCounters")
        .def_ro("demand_bytes", &Counters::demand_bytes)
        .def_ro("prefetch_bytes", &Counters::prefetch_bytes)
        .def_ro("abandoned_bytes", &Counters::abandoned_bytes)
        .def_ro("busy_seconds", &Counters::busy_seconds)
        .def_ro("demand_seconds", &Counters::demand_seconds)
        .def_ro("wait_seconds", &Counters::wait_seconds);
    nb::class_<PyReader>(m, "Reader")
        .def(nb::init<std::vector<std::string>, size_t, bool>(), "paths"_a, "threads"_a, "direct"_a)
        .def("tune", &PyReader::tune, "queue_depth"_a, "part_bytes"_a, "prefetch_depth"_a)
        .def("read", &PyReader::read, "file"_a, "offset"_a, strict("out"), "crc"_a.none(), "is_prefetch"_a)
        .def("wait", &PyReader::wait, "ticket"_a)
        .def("wait_any", &PyReader::wait_any, "tickets"_a)
        .def("is_done", [](PyReader& self, uint64_t ticket) { return self.reader().is_done(ticket); }, "ticket"_a)
        .def("promote", [](PyReader& self, uint64_t ticket) { self.reader().promote(ticket); }, "ticket"_a)
        .def("cancel", &PyReader::cancel, "ticket"_a)
        .def("abandon", [](PyReader& self, uint64_t ticket) { return self.reader().abandon(ticket); }, "ticket"_a)
        .def("close", &PyReader::close)
        .def("counters", [](PyReader& self) { return self.reader().counters(); })
        .def_prop_ro("direct", [](PyReader& self) { return self.reader().direct(); });
}

}  // namespace flashgate::python
