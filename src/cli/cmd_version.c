/* vitro version: which version this is and what is built in. Thread: the main thread. */
#include <stdio.h>

#include "cli/cli.h"
#include "engine/engine.h"
#include "machine/host.h"

int cmd_version(int argc, char **argv)
{
    bool json;

    if (cli_only_json(argc, argv, "version", &json))
        return CLI_ERROR;
    fputs(json ? "{\"version\": \"" VITRO_VERSION "\", \"engines\": [" : "vitro " VITRO_VERSION "\nengines:",
          stdout);
    for (unsigned n = 0; host_engines[n]; n++) {
        if (json)
            printf("%s\"%s\"", n ? ", " : "", host_engines[n]->name);
        else
            printf(" %s", host_engines[n]->name);
    }
    puts(json ? "]}" : "");
    return CLI_OK;
}
