/* A libnvidia-ml.so.1 that answers from the file named by BNBENV_STUB_NVML; for tests without a GPU.
 *
 * The file holds one statement a line:
 *   init N           what nvmlInitWithFlags returns (an nvmlReturn_t; 0 is success)
 *   hang             nvmlInitWithFlags never returns
 *   crash            nvmlInitWithFlags aborts the process
 *   driver TEXT      nvmlSystemGetDriverVersion
 *   cuda N           nvmlSystemGetCudaDriverVersion, such as 12040
 *   count N          what nvmlDeviceGetCount returns instead of success
 *   gpu KEY=VALUE|…  one device: name uuid cc memory (bytes) pci (hex) bus mig (0 or 1)
 *                    handle=N  the error on opening it;  <key>=!N  the error on asking for that key
 *   mig KEY=VALUE|…  one MIG instance of the device above: name uuid memory
 * Declared from the public NVML API reference; only what nvidia-ml-py calls for bnbenv is here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7 };
enum { MAX_DEVICES = 64, MAX_LINE = 1024 };

typedef struct device {
    char text[MAX_LINE];
    int parent; /* -1 for a GPU, else the GPU that a MIG instance belongs to */
} device;

typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} pci_info;

typedef struct {
    unsigned long long total, free, used;
} memory_info;

static device devices[MAX_DEVICES];
static int device_count, init_code, count_code, cuda_version, hang, crash, loaded;
static char driver[80];

static void load(void) {
    const char *path = getenv("BNBENV_STUB_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[MAX_LINE];
    int parent = -1;
    loaded = 1;
    if (!file) {
        init_code = 999;
        return;
    }
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!strncmp(line, "init ", 5)) init_code = atoi(line + 5);
        else if (!strcmp(line, "hang")) hang = 1;
        else if (!strcmp(line, "crash")) crash = 1;
        else if (!strncmp(line, "driver ", 7)) snprintf(driver, sizeof driver, "%s", line + 7);
        else if (!strncmp(line, "cuda ", 5)) cuda_version = atoi(line + 5);
        else if (!strncmp(line, "count ", 6)) count_code = atoi(line + 6);
        else if ((!strncmp(line, "gpu ", 4) || !strncmp(line, "mig ", 4)) && device_count < MAX_DEVICES) {
            device *one = &devices[device_count];
            snprintf(one->text, sizeof one->text, "%s", line + 4);
            if (line[0] == 'g') parent = device_count;
            one->parent = line[0] == 'g' ? -1 : parent;
            device_count++;
        }
    }
    fclose(file);
}

/* Copies the value of a key; returns SUCCESS, the error that the file names, or NOT_SUPPORTED without one. */
static int value(const device *one, const char *key, char *out, size_t size) {
    size_t length = strlen(key);
    const char *at = one->text;
    while (at && *at) {
        const char *end = strchr(at, '|');
        size_t whole = end ? (size_t)(end - at) : strlen(at);
        if (whole > length && !strncmp(at, key, length) && at[length] == '=') {
            size_t have = whole - length - 1;
            if (at[length + 1] == '!') return atoi(at + length + 2);
            if (have >= size) return TOO_SMALL;
            memcpy(out, at + length + 1, have);
            out[have] = 0;
            return SUCCESS;
        }
        at = end ? end + 1 : NULL;
    }
    return NOT_SUPPORTED;
}

static device *nth(int parent, unsigned int wanted) {
    for (int i = 0; i < device_count; i++)
        if (devices[i].parent == parent && wanted-- == 0) return &devices[i];
    return NULL;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    if (!loaded) load();
    if (crash) abort();
    while (hang) sleep(60);
    return init_code;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *out, unsigned int length) {
    if (!driver[0]) return NOT_SUPPORTED;
    if (strlen(driver) >= length) return TOO_SMALL;
    strcpy(out, driver);
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    *out = cuda_version;
    return cuda_version ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetCount_v2(unsigned int *out) {
    *out = 0;
    for (int i = 0; i < device_count; i++) *out += devices[i].parent == -1;
    return count_code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device **out) {
    char text[16];
    *out = nth(-1, index);
    if (!*out) return INVALID_ARGUMENT;
    return value(*out, "handle", text, sizeof text) == SUCCESS ? atoi(text) : SUCCESS;
}

int nvmlDeviceGetName(device *one, char *out, unsigned int length) { return value(one, "name", out, length); }
int nvmlDeviceGetUUID(device *one, char *out, unsigned int length) { return value(one, "uuid", out, length); }

int nvmlDeviceGetCudaComputeCapability(device *one, int *major, int *minor) {
    char text[16];
    int code = value(one, "cc", text, sizeof text);
    if (code == SUCCESS && sscanf(text, "%d.%d", major, minor) != 2) return 999;
    return code;
}

int nvmlDeviceGetMemoryInfo(device *one, memory_info *out) {
    char text[32];
    int code = value(one, "memory", text, sizeof text);
    memset(out, 0, sizeof *out);
    if (code == SUCCESS) out->total = out->free = strtoull(text, NULL, 10);
    return code;
}

int nvmlDeviceGetPciInfo_v3(device *one, pci_info *out) {
    char text[32];
    int code;
    memset(out, 0, sizeof *out);
    code = value(one, "bus", out->busId, sizeof out->busId);
    if (code == SUCCESS && value(one, "pci", text, sizeof text) == SUCCESS)
        out->pciDeviceId = (unsigned int)strtoul(text, NULL, 16);
    return code;
}

int nvmlDeviceGetMigMode(device *one, unsigned int *current, unsigned int *pending) {
    char text[8];
    int code = value(one, "mig", text, sizeof text);
    if (code == SUCCESS) *current = *pending = (unsigned int)atoi(text);
    return code;
}

int nvmlDeviceGetMaxMigDeviceCount(device *one, unsigned int *out) {
    (void)one;
    *out = 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device *one, unsigned int index, device **out) {
    *out = nth((int)(one - devices), index);
    return *out ? SUCCESS : NOT_FOUND;
}
