// Tensors as the optimizers' bindings hand them on.
#pragma once
#include "arguments.h"
#include "optimizers_problem.h"

namespace schuss {

// Types of numbers that kernels know; a tensor's type is its place here.
constexpr const char* tensor_types[] = {"float32", "float64", "bfloat16", "float16"};

// Tensors of one type, each parameter with its gradient and slots.
struct TensorTable {
  int type = -1;
  int slots = 0;
  std::vector<Piece> pieces;
  std::vector<int64_t> numbers{0}, tiles{0};  // before each piece
  std::vector<py::object> held;  // they live as long as the table, as the memory is theirs

  // address is that of the parameter; behind it come those of the gradient and the slots.
  void add(const int64_t* address, int64_t size) {
    Piece piece{};
    piece.param = reinterpret_cast<void*>(address[0]);
    piece.gradient = reinterpret_cast<const void*>(address[1]);
    for (int k = 0; k < slots; ++k) piece.slot[k] = reinterpret_cast<void*>(address[2 + k]);
    piece.size = size;
    pieces.push_back(piece);
    numbers.push_back(numbers.back() + size);
    tiles.push_back(tiles.back() + (size + tensor_tile - 1) / tensor_tile);
  }
};

// The numbers of steps that parameters have made, each in a tensor of its own.
struct StepCounters {
  int type = -1;  // float32 or float64
  std::vector<int64_t> addresses;
  std::vector<py::object> held;
};

}  // namespace schuss
