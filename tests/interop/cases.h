// What Python's PyTorch does, as state_dicts.py tells it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "modelstore/torch.h"

namespace modelstore::interop {

struct Case {
  std::string name;
  std::string module;  // or optimizer
  Value metadata;      // of the state dict; null if it has none
  // In order. Of trees under `tree:key`.
  StateDict tensors;
  std::map<std::string, Value> trees;
  // What load_state_dict(strict=False) returned.
  std::vector<std::string> missing, unexpected;
  // What it raised for.
  std::vector<std::string> mismatch;
  // The module's state afterwards; empty if it raised.
  StateDict after;
};

// Runs the script with Debian's Python and reads its cases; ends the test program
// if it cannot.
std::vector<Case> AskPython(const std::string& what);

// The tree of that name with its tensors.
ValueTree TreeOf(const Case& c, const std::string& name);

// Every floating-point number 0.25, every integer 0, as the script does.
void Blank(torch::nn::Module& module);

}  // namespace modelstore::interop
