/* Windows: some bytes of a file, mapped for reading, and unmapped with the last view of them.

   Python's own mmap does this, too, but keeps a descriptor for each. */

#ifndef SHMSTORE_WINDOW_TYPE_H
#define SHMSTORE_WINDOW_TYPE_H

#include "support.h" /* the first, as it includes Python.h */

#include <stddef.h>
#include <structmember.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD PyObject *weak_references;
    unsigned char *pages; /* MAP_FAILED if there are none */
    size_t pages_size;
    unsigned char *bytes; /* inside the pages */
    Py_ssize_t size;
} WindowObject;

static PyTypeObject *WindowType;

static PyObject *
open_window(PyObject *Py_UNUSED(module), PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"fd", "offset", "size", NULL};
    int descriptor;
    long long offset;
    Py_ssize_t size;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "iLn:open_window", names, &descriptor,
                                     &offset, &size)) {
        return NULL;
    }
    long long inside = offset % sysconf(_SC_PAGESIZE);
    if (offset < 0 || size < 1 || size > PY_SSIZE_T_MAX - inside) {
        PyErr_SetString(PyExc_ValueError, "there are no such bytes");
        return NULL;
    }
    WindowObject *self = PyObject_New(WindowObject, WindowType);
    if (self == NULL) {
        return NULL;
    }
    self->weak_references = NULL;
    self->size = size;
    self->pages_size = (size_t)inside + (size_t)size;
    self->pages =
        mmap(NULL, self->pages_size, PROT_READ, MAP_SHARED, descriptor, (off_t)(offset - inside));
    if (self->pages == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    self->bytes = self->pages + inside;
    return Py_BuildValue("Ni", self, 0);
}

static int
window_buffer(WindowObject *self, Py_buffer *buffer, int flags)
{
    return PyBuffer_FillInfo(buffer, (PyObject *)self, self->bytes, self->size, 1, flags);
}

static void
window_dealloc(WindowObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    if (self->pages != MAP_FAILED) {
        munmap(self->pages, self->pages_size);
    }
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMemberDef window_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(WindowObject, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot window_slots[] = {
    {Py_tp_dealloc, window_dealloc},
    {Py_tp_members, window_members},
    {Py_bf_getbuffer, window_buffer},
    {Py_tp_doc, "Some bytes of a file, mapped for reading."},
    {0, NULL},
};

static PyType_Spec window_spec = {
    .name = "shmstore._native.Window",
    .basicsize = sizeof(WindowObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = window_slots,
};

#endif
