/* Owner.stage(): many requests in one call, from their bytes to their answers. */

#ifndef SHMSTORE_APPLY_TYPE_H
#define SHMSTORE_APPLY_TYPE_H

#include "owner_object.h" /* the first, as it includes Python.h */

#include "apply.h"

static PyObject *outcome_texts[4], *operation_texts[OPERATION_COUNT];

static int
apply_setup(void)
{
    static const char *const outcomes[] = {"done", "general", "blocked", "half done"};
    for (int i = 0; i < 4; i++) {
        if ((outcome_texts[i] = PyUnicode_InternFromString(outcomes[i])) == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < OPERATION_COUNT; i++) {
        operation_texts[i] = PyUnicode_InternFromString(operation_names[i]);
        if (operation_texts[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

/* Stage one message; its row is (id, oldest, operation, answer). */
static enum outcome
stage_message(OwnerObject *self, PyObject *message, unsigned long long seen,
              unsigned long long in_flight_max, PyObject **row)
{
    Py_buffer buffer;
    struct request request;
    enum result result;
    enum outcome outcome = GENERAL;
    if (PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return GENERAL;
    }
    struct span bytes = {buffer.buf, (size_t)buffer.len};
    if (request_parse(bytes, in_flight_max, &request) && request.id > seen) {
        outcome = apply_request(&self->owner, &request, &result);
    }
    PyBuffer_Release(&buffer);
    if (self->callbacks.raised != NULL) {
        Py_CLEAR(self->callbacks.raised); /* the general way will meet it again, or not */
        outcome = HALF_DONE;
    }
    if (outcome == STAGED) {
        unsigned char answer[ANSWER_BYTES_MAX];
        size_t size =
            write_answer(answer, request.id, result, owner_committed(&self->owner) + 1);
        *row = Py_BuildValue("KKOy#", (unsigned long long)request.id,
                             (unsigned long long)request.oldest,
                             operation_texts[request.operation], answer, (Py_ssize_t)size);
    }
    return outcome;
}

static PyObject *
owner_method_stage(OwnerObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (check_count("stage", count, 4) < 0 || owner_enter(self) < 0) {
        return NULL;
    }
    Py_ssize_t most = PyLong_AsSsize_t(arguments[1]), size = PySequence_Size(arguments[0]);
    unsigned long long seen = PyLong_AsUnsignedLongLong(arguments[2]);
    unsigned long long in_flight_max = PyLong_AsUnsignedLongLong(arguments[3]);
    PyObject *rows = PyErr_Occurred() ? NULL : PyList_New(0);
    enum outcome outcome = STAGED;
    for (Py_ssize_t i = 0; rows != NULL && i < size && i < most && outcome == STAGED; i++) {
        PyObject *message = PySequence_GetItem(arguments[0], i), *row = NULL;
        if (message == NULL) {
            PyErr_Clear();
            break;
        }
        outcome = stage_message(self, message, seen, in_flight_max, &row);
        Py_DECREF(message);
        if (outcome == STAGED && (row == NULL || PyList_Append(rows, row) < 0)) {
            /* It is staged and cannot be answered: the batch must not be published. */
            Py_XDECREF(row);
            PyErr_Clear();
            outcome = HALF_DONE;
            break;
        }
        if (row != NULL) {
            seen = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(row, 0));
            Py_DECREF(row);
        }
    }
    self->busy = false;
    return rows ? Py_BuildValue("NO", rows, outcome_texts[outcome]) : NULL;
}

#endif
