"""GGUF: conversion and quantization by llama.cpp, in child processes, and the audit of what was written."""
