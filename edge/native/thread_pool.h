// A fork/join pool for the kernels: one caller hands out numbered tasks. Each thread takes those of its own share from
// first to last, then what is left of the others': neighbours in number are neighbours in memory, where one thread's
// reads ahead are its own next task's.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace flashgate {

class ThreadPool {
public:
    // Threads start when they are first needed: a process that only imports this has none.
    explicit ThreadPool(size_t num_threads) : num_threads_(num_threads) {}
    ~ThreadPool() { stop(); }
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    // Waits for a running fork/join, then changes the number of threads. The caller of run() counts as one.
    void resize(size_t num_threads);
    size_t size() const { return num_threads_.load(std::memory_order_relaxed); }

    // Calls task(i) for each i in [0, num_tasks), in any order and on any thread; returns when all are done.
    // Tasks must not throw and must not call run() themselves. Concurrent callers take turns.
    template <typename Task>
    void run(size_t num_tasks, Task&& task) {
        using T = std::remove_reference_t<Task>;
        run_tasks(num_tasks, [](void* t, size_t i) { (*static_cast<T*>(t))(i); }, &task);
    }

private:
    using Call = void (*)(void*, size_t);

    // Of the tasks of one round; on a cache line of its own.
    struct alignas(64) Share {
        std::atomic<size_t> next;
        size_t end;
    };

    void run_tasks(size_t num_tasks, Call call, void* task);
    void start();
    void stop();
    void work(size_t self);
    void take_tasks(size_t self);
    uint64_t wait_for_round(uint64_t seen);
    void wait_for_workers();

    std::vector<std::thread> workers_;
    std::atomic<size_t> num_threads_;
    std::mutex caller_;  // one fork/join at a time

    // Of the round, and unchanged while a worker is inside and the round open.
    Call call_ = nullptr;
    void* task_ = nullptr;
    std::unique_ptr<Share[]> shares_;  // one for each thread, the caller's first

    // A worker enters, then looks whether the round is open; the caller closes it, then looks whether any is inside. So
    // nobody waits for a worker that was asleep all the time.
    std::atomic<bool> open_{false};
    std::atomic<size_t> inside_{0};

    std::mutex sleep_;
    std::condition_variable wake_;
    std::condition_variable finished_;
    std::atomic<uint64_t> round_{0};
    bool stopping_ = false;
};

}  // namespace flashgate
