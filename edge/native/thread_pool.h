// A fork/join pool for the kernels: one caller hands out numbered tasks, every thread takes the next free one.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
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

    void run_tasks(size_t num_tasks, Call call, void* task);
    void start();
    void stop();
    void work();
    void take_tasks();
    uint64_t wait_for_round(uint64_t seen);

    std::vector<std::thread> workers_;
    std::atomic<size_t> num_threads_;
    std::mutex caller_;  // one fork/join at a time

    Call call_ = nullptr;
    void* task_ = nullptr;
    size_t num_tasks_ = 0;
    std::atomic<size_t> next_{0};
    std::atomic<size_t> running_{0};  // workers that have not finished this round

    std::mutex sleep_;
    std::condition_variable wake_;
    std::condition_variable finished_;
    std::atomic<uint64_t> round_{0};
    bool stopping_ = false;
};

}  // namespace flashgate
