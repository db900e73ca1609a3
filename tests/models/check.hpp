// Runs one scenario as it is, which must be clean, and with each mutant, which must be caught.

#ifndef SHMSTORE_MODELS_CHECK_HPP
#define SHMSTORE_MODELS_CHECK_HPP

#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <iostream>
#include <streambuf>

#include "store.hpp"

struct effort {
    unsigned clean, caught;
    bool search;
};

constexpr effort THOROUGH = {1000000, 2000000, true}, QUICK = {20000, 500000, false};

// So many readers at least must have been accepted, or being clean would mean little.
constexpr unsigned ACCEPTED_MIN = 100;

struct silence : std::streambuf {
    int overflow(int character) override { return character; }
};

// Returns the schedule that failed, counted from 1, or 0 if all were well.
template <class Scenario>
unsigned long long run(rl::test_params parameters, std::ostream &stream, unsigned long long &ran)
{
    parameters.output_stream = parameters.progress_stream = &stream;
    parameters.execution_depth_limit = 5000;
    bool well = rl::simulate<Scenario>(parameters);
    ran = parameters.stop_iteration;
    return well ? 0 : ran;
}

inline void tell(char const *scenario, char const *name, unsigned long long schedules,
                 char const *outcome)
{
    std::printf("%-10s %-26s %10llu  %s\n", scenario, name, schedules, outcome);
    std::fflush(stdout);
}

template <class Scenario>
bool is_clean(char const *scenario, char const *how, rl::test_params const &parameters)
{
    silence nobody;
    std::ostream quiet(&nobody);
    unsigned long long ran;
    accepted_reads = 0;
    if (run<Scenario>(parameters, quiet, ran)) {
        tell(scenario, how, ran, "FAILS, as follows");
        run<Scenario>(parameters, std::cout, ran);
        return false;
    }
    bool meaningful = accepted_reads >= ACCEPTED_MIN;
    tell(scenario, how, ran, meaningful ? "clean" : "FAILS: hardly a reader is ever accepted");
    return meaningful;
}

template <class Scenario> bool is_caught(char const *scenario, mutant each, unsigned schedules)
{
    silence nobody;
    std::ostream quiet(&nobody);
    rl::test_params parameters;
    parameters.iteration_count = schedules;
    active = each;
    unsigned long long ran;
    bool caught = run<Scenario>(parameters, quiet, ran);
    active = none;
    tell(scenario, MUTANT_TEXTS[each].name, ran, caught ? MUTANT_TEXTS[each].text : "SURVIVES");
    return caught;
}

template <class Scenario> bool is_clean_throughout(char const *scenario, effort const &limit)
{
    rl::test_params random, all;
    random.iteration_count = limit.clean;
    bool well = is_clean<Scenario>(scenario, "- random schedules", random);
    if (limit.search) {
        pauses = false;
        all.search_type = rl::fair_context_bound_scheduler_type;
        all.context_bound = Scenario::switches;
        well = is_clean<Scenario>(scenario, "- all with few switches", all) && well;
        pauses = true;
    }
    return well;
}

template <class Scenario>
int check(char const *scenario, int count, char **arguments,
          std::initializer_list<mutant> mutants)
{
    if (count > 1 && std::strcmp(arguments[1], "--mutants") == 0) {
        for (unsigned each = none + 1; each < MUTANT_COUNT; each++) {
            std::puts(MUTANT_TEXTS[each].name);
        }
        return 0;
    }
    bool quick = count > 1 && std::strcmp(arguments[1], "--quick") == 0;
    effort const &limit = quick ? QUICK : THOROUGH;
    bool well = is_clean_throughout<Scenario>(scenario, limit);
    for (mutant each : mutants) {
        well = is_caught<Scenario>(scenario, each, limit.caught) && well;
    }
    return well ? 0 : 1;
}

#endif
