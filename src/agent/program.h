/* The agent's program as it is put into guests, see tools/agent. */
#ifndef VITRO_AGENT_PROGRAM_H
#define VITRO_AGENT_PROGRAM_H

#include <stdint.h>

extern const uint8_t agent_program[], agent_program_end[];

#endif
