/* The native engine: one extension, the C twin of shmstore/pure. Includes point down:

     view_type owner_type              what Python calls
     sequences reader_type             reads of one snapshot
     wire                              records and messages to msgpack, answers back
     owner recovery lists order        the writer's batches
     staging index heap free           the open batch, its words and its blocks
     lookup walk probe records         the ways through the memory
     clock hashing memory layout       F, K and R; the keyed hash; words; the format (generated)

   From owner.h downwards it is plain C11 that knows no Python. */

#include "owner_type.h"
#include "sequences.h"
#include "view_type.h"
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
    {"is_formatted", is_formatted, METH_O,
     "is_formatted(memory)\n--\n\nTell whether a writer has laid out this segment."},
    WIRE_METHODS,
    {NULL, NULL, 0, NULL},
};

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

static int
module_exec(PyObject *module)
{
    if (support_setup() < 0 || wire_setup() < 0 || view_setup() < 0 ||
        record_setup(module) < 0 || add_type(module, &reader_spec, &ReaderType) < 0 ||
        add_type(module, &view_spec, &ViewType) < 0 || owner_setup(module) < 0) {
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
