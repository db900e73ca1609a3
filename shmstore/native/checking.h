/* What Python calls to have a segment checked. */

#ifndef SHMSTORE_CHECKING_H
#define SHMSTORE_CHECKING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "check.h"

/* Return what is wrong as a list of str. Other threads run meanwhile: the memory must stay. */
static PyObject *
problems_of(const struct lookup *lookup, const struct crc_tables *tables,
            const struct blocks *unused)
{
    enum status status;
    struct problems *problems = malloc(sizeof *problems);
    if (problems == NULL) {
        return PyErr_NoMemory();
    }
    Py_BEGIN_ALLOW_THREADS;
    status = check_segment(lookup, tables, unused, problems);
    Py_END_ALLOW_THREADS;
    PyObject *list = status == FINE ? PyList_New(0) : PyErr_NoMemory();
    for (size_t i = 0; list != NULL && i < problems->count; i++) {
        PyObject *text = PyUnicode_FromString(problems->texts[i]);
        if (text == NULL || PyList_Append(list, text) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(text);
    }
    free(problems);
    return list;
}

static int
granules_of(PyObject *number, uint64_t *granules)
{
    *granules = PyLong_AsUnsignedLongLong(number);
    if (*granules > GRANULE_MASK && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_OverflowError, "no block is there");
    }
    return PyErr_Occurred() ? -1 : 0;
}

static int
block_of(PyObject *pair, struct blocks *blocks)
{
    uint64_t start, size;
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_TypeError, "an unused block is (start, size)");
        return -1;
    }
    if (granules_of(PyTuple_GET_ITEM(pair, 0), &start) < 0 ||
        granules_of(PyTuple_GET_ITEM(pair, 1), &size) < 0) {
        return -1;
    }
    if (blocks_add(blocks, start, size) != FINE) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Read (start, size) of blocks that a caller says are unused. */
static int
blocks_of(PyObject *pairs, struct blocks *blocks)
{
    PyObject *pair, *iterator = PyObject_GetIter(pairs);
    while (iterator != NULL && (pair = PyIter_Next(iterator)) != NULL) {
        int outcome = block_of(pair, blocks);
        Py_DECREF(pair);
        if (outcome < 0) {
            break;
        }
    }
    Py_XDECREF(iterator);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *
problems_of_memory(const Py_buffer *buffer, const struct blocks *unused)
{
    struct crc_tables tables;
    struct lookup lookup;
    if (buffer->len < HEAP_START || buffer->len % GRANULE_BYTES) {
        return Py_BuildValue("[s]", "the memory has not the size of a segment");
    }
    if ((uintptr_t)buffer->buf % WORD_BYTES) {
        PyErr_SetString(PyExc_ValueError, "this memory does not begin at a whole word");
        return NULL;
    }
    lookup_open(&lookup, buffer->buf, (uint64_t)buffer->len);
    crc_prepare(&tables);
    return problems_of(&lookup, &tables, unused);
}

static PyObject *
check_segment_function(PyObject *Py_UNUSED(module), PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"memory", "unused", NULL};
    PyObject *memory, *pairs = Py_None, *problems = NULL;
    struct blocks unused = {0};
    Py_buffer buffer;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O|O:check_segment", names, &memory,
                                     &pairs) ||
        PyObject_GetBuffer(memory, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (pairs == Py_None || blocks_of(pairs, &unused) == 0) {
        problems = problems_of_memory(&buffer, pairs == Py_None ? NULL : &unused);
    }
    blocks_close(&unused);
    PyBuffer_Release(&buffer);
    return problems;
}

#endif
