/* The native engine: one extension, the C twin of shmstore/pure. Includes point down:

     view_type owner_type apply_type   what Python calls
     pins_type window_type
     checking                          the same, to have a segment checked
     sequences reader_type             reads of one snapshot
     record_type decoding              records decoded where they are touched
     wire                              records and messages to msgpack, answers back
     apply requests packed             plain requests from their bytes
     check notes                       every invariant
     owner recovery lists pins order   the writer's batches
     staging index heap free pinned    the open batch, its words and its blocks
     lookup walk probe records         the ways through the memory
     clock hashing memory layout       F, K and R; the keyed hash; words; the format (generated)

   From apply.h downwards it is plain C11 that knows no Python.

   It does not declare itself safe without the GIL, as nothing else orders a close() and the reads of
   another thread, or two touches of one Record; a free-threaded Python enables the GIL for it. */

#include "owner_type.h"
#include "sequences.h"
#include "view_type.h"
#include "window_type.h"
#include "wire.h"

static PyObject *
is_formatted(PyObject *Py_UNUSED(module), PyObject *memory)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(memory, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    const uint64_t magic = MAGIC;
    bool formatted = buffer.len >= HEAP_START && memcmp(buffer.buf, &magic, sizeof magic) == 0;
    PyBuffer_Release(&buffer);
    return PyBool_FromLong(formatted);
}

static PyMethodDef module_methods[] = {
    {"check_segment", (PyCFunction)(void (*)(void))check_segment_function,
     METH_VARARGS | METH_KEYWORDS,
     "check_segment(memory, unused=None)\n--\n\n"
     "Return what is wrong, in words; unused are the blocks that the writer says are free."},
    {"is_formatted", is_formatted, METH_O,
     "is_formatted(memory)\n--\n\nTell whether a writer has laid out this segment."},
    {"open_window", (PyCFunction)(void (*)(void))open_window, METH_VARARGS | METH_KEYWORDS,
     "open_window(fd, offset, size)\n--\n\n"
     "Map some bytes; return what exports them, and where in it they begin."},
    WIRE_METHODS,
    {NULL, NULL, 0, NULL},
};

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

/* The types and the names that are kept are objects of the interpreter that came first. */
static int
check_interpreter(void)
{
    static PyInterpreterState *home;
    PyInterpreterState *here = PyInterpreterState_Get();
    if (home != NULL && home != here) {
        PyErr_SetString(PyExc_ImportError, "shmstore._native serves one interpreter of a process");
        return -1;
    }
    home = here;
    return 0;
}

static int
module_exec(PyObject *module)
{
    if (check_interpreter() < 0) {
        return -1;
    }
    if (support_setup() < 0 || wire_setup() < 0 || view_setup() < 0 || record_setup(module) < 0 ||
        add_type(module, &reader_spec, &ReaderType) < 0 ||
        add_type(module, &view_spec, &ViewType) < 0 ||
        add_type(module, &window_spec, &WindowType) < 0 || owner_setup(module) < 0) {
        return -1;
    }
    if (PyModule_AddStringConstant(module, "NAME", "native") < 0 ||
        PyModule_AddStringConstant(module, "LAYOUT_DIGEST", LAYOUT_DIGEST) < 0 ||
        PyModule_AddIntConstant(module, "FORMAT_VERSION", FORMAT_VERSION) < 0) {
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shmstore._native",
    .m_doc = "The native engine: the C twin of shmstore.pure.",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&module_definition);
}
