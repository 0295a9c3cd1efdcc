/* What cmocka needs before itself, for every unit test. */
#ifndef VITRO_TESTS_UNIT_TEST_H
#define VITRO_TESTS_UNIT_TEST_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#endif
